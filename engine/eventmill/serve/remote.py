"""Asking a running engine over its unix socket, or opening the data folder when none runs."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import orjson

from eventmill.core.config import Config
from eventmill.core.errors import DataFolderBusy, StoreError
from eventmill.net import unix
from eventmill.serve.folder import ENGINE_SOCKET, DataFolder, existing_stores
from eventmill.serve.stores import Stores

_TIMEOUT_S: Final = 600.0


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket instead of a host."""
        self.sock = unix.connect_blocking(self._path, _TIMEOUT_S)


def ask(config: Config, method: str, path: str, body: bytes = b"") -> Any:
    """One answer of the running engine, decoded. Raises ``StoreError`` when it gives none."""
    connection = _UnixConnection(config.data / ENGINE_SOCKET)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        content = response.read()
    except OSError as error:
        raise StoreError(
            f"a process holds {config.data} but does not answer ({error}); if it is starting, try again"
        ) from error
    finally:
        connection.close()
    answer = orjson.loads(content)
    if response.status >= 400 and "error" in answer:
        raise StoreError(answer["error"])
    return answer


@contextlib.contextmanager
def stores_or_none(config: Config) -> Iterator[Stores | None]:
    """The folder's stores, or ``None`` when a running engine holds them."""
    existing_stores(config)
    try:
        folder = DataFolder(config.data)
    except DataFolderBusy:
        yield None
        return
    with folder:
        stores = Stores(config)
        try:
            yield stores
        finally:
            stores.close()
