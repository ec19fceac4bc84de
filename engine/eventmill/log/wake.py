"""Waking readers in any process when a writer has committed, without polling.

Every open log binds one Unix datagram socket in ``wake/``; a writer sends one byte to each after its commit. A lost
byte costs at most ``RECHECK_S``: sleepers look again then.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from eventmill.core.threads import name_thread

RECHECK_S: Final = 1.0
#: Linux takes at most 108 bytes for a socket's path, so sockets are addressed through the folder's descriptor.
_VIA_FD: Final = "/proc/self/fd/{fd}/{name}"


class Waker:
    """Safe to share between threads."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        self._name = f"{os.getpid()}-{os.urandom(4).hex()}"
        self._condition = threading.Condition()
        self._generation = 0
        self._closed = False
        self._peers: tuple[int, tuple[str, ...]] = (-1, ())
        self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sender.setblocking(False)
        self._receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._receiver.bind(self._address(self._name))
        self._thread = threading.Thread(target=self._listen, name="log-wake", daemon=True)
        self._thread.start()

    def _address(self, name: str) -> str:
        return _VIA_FD.format(fd=self._fd, name=name)

    def _listen(self) -> None:
        name_thread("log-wake")
        while not self._closed:
            try:
                self._receiver.recv(1)
            except OSError:
                return
            self.wake()

    def wake(self) -> None:
        """Let those who sleep in this process look again."""
        with self._condition:
            self._generation += 1
            self._condition.notify_all()

    def notify(self) -> None:
        """Tell every reader, here and in other processes, that something was committed."""
        self.wake()
        stamp = os.fstat(self._fd).st_mtime_ns
        if stamp != self._peers[0]:
            self._peers = (stamp, tuple(name for name in os.listdir(self._fd) if name != self._name))  # noqa: PTH208
        for name in self._peers[1]:
            try:
                self._sender.sendto(b"\0", self._address(name))
            except BlockingIOError:
                continue  # its queue is full of wake-ups already
            except (ConnectionRefusedError, FileNotFoundError):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=self._fd)  # left by a process that was killed
            except OSError:
                continue

    def wait_until(self, ready: Callable[[], bool], timeout_s: float) -> bool:
        """Sleep until ``ready()`` holds; false on timeout or when closed."""
        deadline = time.monotonic() + timeout_s
        while not self._closed:
            with self._condition:
                generation = self._generation
            if ready():
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            with self._condition:
                if self._generation == generation and not self._closed:
                    self._condition.wait(min(left, RECHECK_S))
        return False

    def close(self) -> None:
        """Wakes all sleepers for good."""
        if self._closed:
            return
        self._closed = True
        self.wake()
        with contextlib.suppress(OSError):
            self._sender.sendto(b"\0", self._address(self._name))
        self._thread.join()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._name, dir_fd=self._fd)
        self._receiver.close()
        self._sender.close()
        os.close(self._fd)
