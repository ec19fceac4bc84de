"""What the testbed's servers of one process have in common."""

from __future__ import annotations

import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from testbed.process import Server, eventually, free_port


class Startable(ABC):
    """A context manager: started and ready inside, ended afterwards, also where it does not start."""

    @abstractmethod
    def start(self) -> None:
        """Returns once it answers."""

    @abstractmethod
    def close(self) -> None:
        """End it, and remove what it has made."""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class SingleServer(Startable):
    """One server on loopback; its folder is removed afterwards.

    ``name`` is what messages call it. A ``folder`` that is given outlives the server; its own folder does not.
    """

    name: ClassVar[str]
    server: Server

    def __init__(self, folder: Path | None = None) -> None:
        self.port = free_port()
        self._made = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="eventmill-testbed-"))
        self.folder.mkdir(parents=True, exist_ok=True)

    def serve(self, command: Sequence[str], environ: Mapping[str, str] | None = None) -> None:
        """What ``start`` runs; to be called once, by the server's own ``__init__``."""
        self.server = Server(command, self.folder / "messages.txt", environ)

    @abstractmethod
    def answers(self) -> bool:
        """It answers now, if only by refusing."""

    def start(self) -> None:
        """Returns once it answers. Raises RuntimeError when it ends instead."""
        self.server.start()

        def ready() -> bool:
            if self.server.crashed:
                raise RuntimeError(f"{self.name} ended: {self.server.tail()}")
            return self.answers()

        eventually(ready, lambda: f"{self.name} answers: {self.server.tail()}")

    def kill(self) -> None:
        """SIGKILL."""
        self.server.kill()

    def pause(self) -> None:
        """SIGSTOP."""
        self.server.pause()

    def resume(self) -> None:
        """SIGCONT."""
        self.server.resume()

    def mend(self) -> None:
        """Runs and answers again, whatever was done to it."""
        self.server.resume()
        self.start()

    def close(self) -> None:
        """End it, and remove the folder if it made one."""
        self.server.kill()
        if self._made:
            shutil.rmtree(self.folder, ignore_errors=True)
