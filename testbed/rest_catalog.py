"""Apache Iceberg's own REST catalog, over a SQLite file; its jars come from Maven Central and are kept in the cache."""

from __future__ import annotations

import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import Final

from testbed.jars import java
from testbed.packages import CACHE, Unavailable, locked, program
from testbed.single import SingleServer

_VERSION: Final = "1.10.0"
#: The servlet is in the jar of Iceberg's own tests.
_ARTIFACTS: Final = (
    ("org.apache.iceberg", "iceberg-core", _VERSION, ""),
    ("org.apache.iceberg", "iceberg-core", _VERSION, "tests"),
    ("org.apache.hadoop", "hadoop-client-api", "3.4.1", ""),
    ("org.apache.hadoop", "hadoop-client-runtime", "3.4.1", ""),
    ("org.eclipse.jetty", "jetty-servlet", "11.0.25", ""),
    ("org.slf4j", "slf4j-simple", "2.0.17", ""),
    ("org.xerial", "sqlite-jdbc", "3.50.3.0", ""),
)


def _jars() -> Path:
    """The folder of the jars. Raises Unavailable."""
    folder = CACHE / f"iceberg-rest-{_VERSION}"
    if not folder.exists():
        with locked("iceberg-rest"):
            if not folder.exists():
                _fetch(folder)
    return folder


def _fetch(folder: Path) -> None:
    maven = program("mvn", "maven")
    draft = folder.with_name(folder.name + ".draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    dependencies = "".join(
        f"<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version>"
        + (f"<classifier>{kind}</classifier>" if kind else "")
        + "</dependency>"
        for group, artifact, version, kind in _ARTIFACTS
    )
    (draft / "pom.xml").write_text(
        "<project><modelVersion>4.0.0</modelVersion><groupId>io.eventmill</groupId><artifactId>rest-catalog</artifactId>"
        f"<version>1</version><dependencies>{dependencies}</dependencies></project>"
    )
    command = [maven, "-q", "-B", "-f", str(draft / "pom.xml"), "dependency:copy-dependencies"]
    command += ["-DincludeScope=runtime", f"-DoutputDirectory={draft}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"Iceberg's REST catalog cannot be fetched: {(done.stdout + done.stderr)[-500:]}")
    draft.rename(folder)


class RestCatalog(SingleServer):
    """What it holds outlives a restart, not ``close``; the tables' files lie where clients say."""

    name = "the REST catalog"

    def __init__(self) -> None:
        source = Path(__file__).parent / "java" / "RestCatalog.java"
        command = [java(), "-Xmx256m", "-cp", f"{_jars()}/*", str(source)]
        super().__init__()
        command += [str(self.port), str(self.folder / "catalog.sqlite"), str(self.folder / "warehouse")]
        self.serve(command)

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``."""
        return f"http://127.0.0.1:{self.port}"

    def answers(self) -> bool:
        """It answers now."""
        try:
            with urllib.request.urlopen(f"{self.url}/v1/config", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False
