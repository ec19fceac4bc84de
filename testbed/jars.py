"""Apache Kafka's jars: from Maven Central, kept in the cache, or from an unpacked release named by ``KAFKA_HOME``."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from testbed.packages import CACHE, Unavailable, locked, program

VERSION: Final = "4.3.1"
#: ``kafka-tools`` has the console consumer, the log4j binding lets brokers say what ails them.
_POM: Final = f"""<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>io.eventmill</groupId><artifactId>testbed</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>{VERSION}</version></dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.25.5</version></dependency>
  </dependencies>
</project>
"""


def java() -> str:
    """The path of a JVM of version 17 or newer. Raises Unavailable."""
    path = program("java", "default-jdk-headless")
    said = subprocess.run([path, "-version"], capture_output=True, text=True, check=False).stderr
    version = said.partition('"')[2].partition('"')[0]
    if not version.split(".")[0].isdigit() or int(version.split(".")[0]) < 17:
        raise Unavailable(f"a JDK of version 17 or newer is needed, java is {version or 'unknown'}; put one on PATH")
    return path


def jars() -> Path:
    """The folder of the jars. Raises Unavailable."""
    if "KAFKA_HOME" in os.environ:
        folder = Path(os.environ["KAFKA_HOME"]) / "libs"
        if not list(folder.glob("kafka_*.jar")):
            raise Unavailable(f"{folder} has no Kafka; unset KAFKA_HOME or point it to an unpacked release")
        return folder
    return fetched(f"kafka-{VERSION}", _POM, "unpack a release of Kafka and name its folder by KAFKA_HOME")


def classpath() -> str:
    """What ``java -cp`` takes."""
    return f"{jars()}/*"


def fetched(name: str, pom: str, cure: str) -> Path:
    """The folder of a project's jars in the cache, from Maven Central at first. Raises Unavailable with ``cure``."""
    folder = CACHE / name
    if not folder.exists():
        with locked(name):
            if not folder.exists():
                _fetch(folder, pom, cure)
    return folder


def _fetch(folder: Path, pom: str, cure: str) -> None:
    maven = program("mvn", "maven")
    draft = folder.with_name(folder.name + ".draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    (draft / "pom.xml").write_text(pom)
    command = [
        maven, "-q", "-B", "-f", str(draft / "pom.xml"), "dependency:copy-dependencies", "-DincludeScope=runtime",
        f"-DoutputDirectory={draft}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(
            f"{folder.name} cannot be fetched from Maven Central; {cure}: {(done.stdout + done.stderr)[-500:]}"
        )
    draft.rename(folder)
