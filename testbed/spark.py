"""Apache Iceberg's runtime for Spark, from Maven Central, kept in the cache."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

from testbed.jars import java
from testbed.packages import CACHE, Unavailable, locked, program

_ARTIFACT: Final = "iceberg-spark-runtime-4.1_2.13"
_VERSION: Final = "1.11.0"


def iceberg_jar() -> Path:
    """The jar that gives Spark 4.1 the format ``iceberg``; a JVM is there too. Raises Unavailable."""
    java()
    jar = CACHE / f"{_ARTIFACT}-{_VERSION}.jar"
    if not jar.exists():
        with locked("spark"):
            if not jar.exists():
                _fetch(jar)
    return jar


def _fetch(jar: Path) -> None:
    maven = program("mvn", "maven")
    draft = jar.with_suffix(".draft")
    command = [
        maven, "-q", "-B", "dependency:copy", f"-Dartifact=org.apache.iceberg:{_ARTIFACT}:{_VERSION}",
        f"-DoutputDirectory={draft}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"Iceberg's runtime for Spark cannot be fetched: {(done.stdout + done.stderr)[-500:]}")
    (draft / jar.name).rename(jar)
    shutil.rmtree(draft)
