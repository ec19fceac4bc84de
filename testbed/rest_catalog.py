"""Apache Iceberg's own REST catalog, over a SQLite file; its jars come from Maven Central and are kept in the cache."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Final

from testbed.jars import java
from testbed.packages import CACHE, Unavailable, locked, program
from testbed.process import Server, eventually, free_port

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


class RestCatalog:
    """One catalog on loopback. What it holds outlives a restart, not ``close``; the tables' files lie where clients say."""

    def __init__(self) -> None:
        source = Path(__file__).parent / "java" / "RestCatalog.java"
        command = [java(), "-Xmx256m", "-cp", f"{_jars()}/*", str(source)]
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="eventmill-rest-"))
        command += [str(self.port), str(self.folder / "catalog.sqlite"), str(self.folder / "warehouse")]
        self.server = Server(command, self.folder / "messages.txt")

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns once it answers."""
        self.server.start()
        eventually(self.answers, lambda: f"the REST catalog answers: {self.server.tail()}")

    def answers(self) -> bool:
        """It answers now."""
        try:
            with urllib.request.urlopen(f"{self.url}/v1/config", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def kill(self) -> None:
        """SIGKILL."""
        self.server.kill()

    def close(self) -> None:
        """End it and remove its folder."""
        self.server.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> RestCatalog:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
