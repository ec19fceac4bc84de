"""The data folder: one engine at a time."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Final

from eventmill.core.config import Config
from eventmill.core.errors import ConfigError, DataFolderBusy

ENGINE_SOCKET: Final = "engine.sock"
_LOCK: Final = "engine.lock"


class DataFolder:
    """An exclusive hold on a data folder; the kernel lets go of it when the process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigError(
                f"the data folder {path} cannot be used: {error.strerror}; name another by --data"
            ) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            raise DataFolderBusy(
                f"another eventmill process holds {path}; stop it first, or name another folder by --data"
            ) from None

    def release(self) -> None:
        """Let go."""
        os.close(self._descriptor)

    def __enter__(self) -> DataFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def existing(path: Path) -> None:
    """Raises ``ConfigError`` unless ``path`` is a data folder with an embedded log."""
    if not (path / "log" / "log.sqlite").exists():
        raise ConfigError(f"{path} is no data folder of eventmill: it has no log; name the right one by --data")


def existing_stores(config: Config) -> None:
    """Raises ``ConfigError`` unless the data folder has stores: beside an embedded log, or of a ``sink`` on Kafka."""
    if not config.kafka.bootstrap:
        existing(config.data)
    elif not (config.data / _LOCK).exists():
        raise ConfigError(
            f"{config.data} is no data folder of a sink; name the one that `eventmill sink` has by --data"
        )
