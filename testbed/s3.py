"""A real S3 server, versitygw over a folder, built from its Go module; or the program that ``VERSITYGW`` names."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from testbed.packages import CACHE, Unavailable, locked, program
from testbed.single import SingleServer

VERSION: Final = "1.8.0"
_MODULE: Final = f"github.com/versity/versitygw/cmd/versitygw@v{VERSION}"
_GO: Final = (1, 21)
_ACCESS: Final = "testbed"
_SECRET: Final = "testbed-secret"


def _built() -> str:
    """The server's program, built once. Raises Unavailable."""
    if "VERSITYGW" in os.environ:
        return os.environ["VERSITYGW"]
    path = CACHE / f"versitygw-{VERSION}"
    if not path.exists():
        with locked("versitygw"):
            if not path.exists():
                _build(path)
    return str(path)


def _build(path: Path) -> None:
    go = program("go", "golang-go")
    said = subprocess.run([go, "version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"go(\d+)\.(\d+)", said)
    if found is None or (int(found[1]), int(found[2])) < _GO:
        raise Unavailable(f"versitygw needs Go {_GO[0]}.{_GO[1]} or newer, not {said.strip()!r}; put one on PATH")
    draft = Path(tempfile.mkdtemp(prefix="eventmill-go-", dir=CACHE))
    try:
        environ = {**os.environ, "GOBIN": str(draft), "GOFLAGS": "-trimpath"}
        done = subprocess.run([go, "install", _MODULE], env=environ, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unavailable(f"versitygw cannot be built; name a program of it by VERSITYGW: {done.stderr[-500:]}")
        (draft / "versitygw").rename(path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


class S3(SingleServer):
    """One server with one bucket, ``lake``. What it holds outlives a restart, not ``close``."""

    name = "S3"
    bucket = "lake"
    access_key_id = _ACCESS
    secret_access_key = _SECRET

    def __init__(self) -> None:
        command = [_built()]
        super().__init__()
        (self.folder / "data" / self.bucket).mkdir(parents=True)
        (self.folder / "meta").mkdir()
        command += ["--port", f"127.0.0.1:{self.port}", "posix", "--sidecar", str(self.folder / "meta")]
        command += [str(self.folder / "data")]
        environ = {"ROOT_ACCESS_KEY": _ACCESS, "ROOT_SECRET_KEY": _SECRET}
        self.serve(command, environ)

    @property
    def endpoint(self) -> str:
        """``http://127.0.0.1:PORT``."""
        return f"http://127.0.0.1:{self.port}"

    def environ(self, prefix: str) -> dict[str, str]:
        """What lets ``eventmill`` keep its lake here, below ``prefix``."""
        return {
            "EVENTMILL_LAKE__WAREHOUSE": f"s3://{self.bucket}/{prefix}",
            "EVENTMILL_LAKE__ENDPOINT": self.endpoint,
            "EVENTMILL_LAKE__ACCESS_KEY_ID": self.access_key_id,
            "EVENTMILL_LAKE__SECRET_ACCESS_KEY": self.secret_access_key,
        }

    def files(self, prefix: str) -> set[str]:
        """The objects below ``prefix``, as they lie on the server's disk."""
        root = self.folder / "data" / self.bucket
        return {str(path.relative_to(root)) for path in (root / prefix).rglob("*") if path.is_file()}

    def answers(self) -> bool:
        """It answers a request now, if only by refusing it."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=1)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status < 500
        except OSError:
            return False
        finally:
            connection.close()
