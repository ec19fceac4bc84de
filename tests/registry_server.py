"""A real schema registry for tests: Apicurio Registry, started from its release on Maven Central."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import socket
import subprocess
import tarfile
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from serving import eventually

#: The newest that runs on Java 17.
VERSION = "3.0.9"
URL = (
    "https://repo1.maven.org/maven2/io/apicurio/apicurio-registry-app/"
    f"{VERSION}/apicurio-registry-app-{VERSION}-all.tar.gz"
)
SHA1 = "4deac01752711c32da5662e7b778b61c5e904746"


def unpacked() -> Path:
    """The release's folder in the user's cache, fetched when it is not there."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "eventmill"
    folder = cache / f"apicurio-{VERSION}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".apicurio.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=cache) as aside:
                archive = Path(aside) / "archive"
                with urllib.request.urlopen(URL, timeout=60) as answer, archive.open("wb") as file:
                    shutil.copyfileobj(answer, file)
                with archive.open("rb") as file:
                    assert hashlib.file_digest(file, "sha1").hexdigest() == SHA1, f"{URL} is not what it was"
                with tarfile.open(archive) as tar:
                    tar.extractall(Path(aside) / "out", filter="data")
                (Path(aside) / "out").rename(folder)
    return folder


class Registry:
    """One process with its schemas in memory; ``stop`` and ``start`` again keeps the address and forgets the schemas."""

    def __init__(self, folder: Path, work: Path) -> None:
        self.folder, self.work = folder, work
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/apis/ccompat/v7"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        jar = self.folder / f"apicurio-registry-app-{VERSION}-runner.jar"
        with (self.work / "registry.log").open("ab") as log:
            self.process = subprocess.Popen(
                ["java", "-Xmx512m", "-XX:TieredStopAtLevel=1", f"-Dquarkus.http.port={self.port}",
                 "-Dquarkus.http.host=127.0.0.1", "-jar", str(jar)],
                stdout=log, stderr=subprocess.STDOUT, cwd=self.work,
            )  # fmt: skip
        eventually(self._answers)

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.work / "registry.log").read_text()[-3000:]
        with (
            contextlib.suppress(urllib.error.URLError, OSError),
            urllib.request.urlopen(f"{self.url}/subjects", timeout=5),
        ):
            return True
        return False

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def registry_or_skip(work: Path) -> Registry:
    """A started registry. Skips where none can be had, and fails there under CI=true."""
    why = None
    try:
        if shutil.which("java") is None:
            why = "there is no java"
        else:
            folder = unpacked()
    except (OSError, urllib.error.URLError) as error:
        why = f"Apicurio Registry cannot be fetched: {error}"
    if why is not None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(why)
    registry = Registry(folder, work)
    registry.start()
    return registry
