"""A PostgreSQL server of Debian's package."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path
from typing import Final

from testbed.packages import Unavailable, program
from testbed.single import SingleServer

_USER: Final = "eventmill"
_PASSWORD: Final = "testbed-password"


def _programs() -> Path:
    """The folder of ``initdb`` and ``postgres``; Debian keeps them off PATH. Raises Unavailable."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else Path(program("initdb", "postgresql")).parent


class Postgres(SingleServer):
    """One server with one database, ``lake``. What it holds outlives a restart, not ``close``."""

    name = "PostgreSQL"

    def __init__(self) -> None:
        try:
            programs = _programs()
        except Unavailable:
            found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))  # installed just now, off PATH
            if not found:
                raise
            programs = found[-1].parent
        super().__init__()
        password = self.folder / "password"
        password.write_text(_PASSWORD)
        as_user = self._give_away()
        command = [str(programs / "initdb"), "-D", str(self.folder / "data"), "-U", _USER, "--auth=scram-sha-256"]
        done = subprocess.run(
            [*as_user, *command, f"--pwfile={password}", "--no-sync"], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise Unavailable(f"initdb failed: {done.stderr[-500:]}")
        command = [str(programs / "postgres"), "-D", str(self.folder / "data"), "-p", str(self.port)]
        command += ["-h", "127.0.0.1", "-k", str(self.folder), "-c", "fsync=off"]
        self.serve([*as_user, *command])
        self._ready = str(programs / "pg_isready")

    def _give_away(self) -> list[str]:
        """PostgreSQL refuses to run as root: the folder belongs to somebody else then, and so do the processes."""
        if os.geteuid() != 0:
            return []
        names = {entry.pw_name for entry in pwd.getpwall()}
        user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
        for path in (self.folder, *self.folder.iterdir()):
            os.chown(path, user.pw_uid, user.pw_gid)
        setpriv = program("setpriv", "util-linux")
        return [setpriv, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]

    @property
    def url(self) -> str:
        """``postgresql://USER:PASSWORD@127.0.0.1:PORT/postgres``."""
        return f"postgresql://{_USER}:{_PASSWORD}@127.0.0.1:{self.port}/postgres"

    @property
    def user(self) -> str:
        """The one in ``url``."""
        return _USER

    @property
    def password(self) -> str:
        """The one in ``url``."""
        return _PASSWORD

    def answers(self) -> bool:
        """It takes connections now."""
        command = [self._ready, "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(command, check=False).returncode == 0
