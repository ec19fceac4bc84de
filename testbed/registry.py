"""A real schema registry: Apicurio Registry, from its release on Maven Central, with its schemas in memory."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import tempfile
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Final

from testbed.jars import java
from testbed.packages import CACHE, Unavailable, locked
from testbed.process import Server, eventually, free_port

#: The newest that runs on Java 17.
VERSION: Final = "3.0.9"
URL: Final = (
    "https://repo1.maven.org/maven2/io/apicurio/apicurio-registry-app/"
    f"{VERSION}/apicurio-registry-app-{VERSION}-all.tar.gz"
)
SHA1: Final = "4deac01752711c32da5662e7b778b61c5e904746"
#: Where it speaks as Confluent's does.
PATH: Final = "/apis/ccompat/v7"
_FETCH_S: Final = 60
_ASK_S: Final = 5


def _unpacked() -> Path:
    """The release's folder in the cache, fetched when it is not there. Raises Unavailable."""
    folder = CACHE / f"apicurio-{VERSION}"
    with locked("apicurio"):
        if not folder.exists():
            try:
                _fetch(folder)
            except OSError as error:
                raise Unavailable(f"Apicurio Registry cannot be fetched: {error}") from error
    return folder


def _fetch(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=CACHE) as aside:
        archive = Path(aside) / "archive"
        with urllib.request.urlopen(URL, timeout=_FETCH_S) as answer, archive.open("wb") as file:
            shutil.copyfileobj(answer, file)
        with archive.open("rb") as file:
            if hashlib.file_digest(file, "sha1").hexdigest() != SHA1:
                raise Unavailable(f"{URL} is not what it was")
        with tarfile.open(archive) as tar:
            tar.extractall(Path(aside) / "out", filter="data")
        (Path(aside) / "out").rename(folder)


class Registry:
    """One process; ``stop`` and ``start`` again keeps the address and forgets the schemas. A context manager."""

    def __init__(self) -> None:
        jar = _unpacked() / f"apicurio-registry-app-{VERSION}-runner.jar"
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="eventmill-registry-"))
        command = [
            java(), "-Xmx512m", "-XX:TieredStopAtLevel=1", f"-Dquarkus.http.port={self.port}",
            "-Dquarkus.http.host=127.0.0.1", "-jar", str(jar),
        ]  # fmt: skip
        self.server = Server(command, self.folder / "messages.txt")

    @property
    def url(self) -> str:
        """What ``schemas.registry`` takes."""
        return f"http://127.0.0.1:{self.port}{PATH}"

    def start(self) -> None:
        """Returns once it answers."""
        self.server.start()
        eventually(self._answers, lambda: f"the registry answers: {self.server.tail()}")

    def _answers(self) -> bool:
        if self.server.crashed:
            raise RuntimeError(f"the registry ended: {self.server.tail()}")
        try:
            with urllib.request.urlopen(f"{self.url}/subjects", timeout=_ASK_S):
                return True
        except OSError:
            return False

    def stop(self) -> None:
        """SIGKILL."""
        self.server.kill()

    def close(self) -> None:
        """End it and remove its folder."""
        self.server.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Registry:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
