"""A real schema registry: Apicurio Registry, from its release on Maven Central, with its schemas in memory."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import tempfile
import urllib.request
from pathlib import Path
from typing import Final

from testbed.jars import java
from testbed.packages import CACHE, Unavailable, locked
from testbed.single import SingleServer

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


class Registry(SingleServer):
    """``kill`` and ``start`` again keeps the address and forgets the schemas."""

    name = "the registry"

    def __init__(self) -> None:
        jar = _unpacked() / f"apicurio-registry-app-{VERSION}-runner.jar"
        super().__init__()
        command = [
            java(), "-Xmx512m", "-XX:TieredStopAtLevel=1", f"-Dquarkus.http.port={self.port}",
            "-Dquarkus.http.host=127.0.0.1", "-jar", str(jar),
        ]  # fmt: skip
        self.serve(command)

    @property
    def url(self) -> str:
        """What ``schemas.registry`` takes."""
        return f"http://127.0.0.1:{self.port}{PATH}"

    def answers(self) -> bool:
        """It answers now."""
        try:
            with urllib.request.urlopen(f"{self.url}/subjects", timeout=_ASK_S):
                return True
        except OSError:
            return False
