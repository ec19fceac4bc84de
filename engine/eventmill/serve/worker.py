"""A thread that repeats recover-then-steps, and says when it cannot go on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from eventmill.core.errors import LogUnavailable, StateError, StoreUnavailable, disk_full
from eventmill.core.threads import name_thread

logger = logging.getLogger(__name__)

STEP_TIMEOUT_S: Final = 0.25
_RETRY_S: Final = (0.1, 0.5, 2.0, 5.0)
_FULL_RETRY_S: Final = 1.0


class Worker:
    """Runs ``recover`` once and ``step`` for ever; after an error both again, since no state may outlive one.

    ``LogUnavailable``, ``StoreUnavailable`` and a full disk are waited out. ``StateError``, or any other error four times in a
    row without a step between, is fatal: ``failed`` is called with it.
    """

    def __init__(
        self,
        name: str,
        recover: Callable[[], object],
        step: Callable[[float], int],
        failed: Callable[[str, Exception], None],
    ) -> None:
        self.name = name
        self._recover, self._step, self._failed = recover, step, failed
        self._stopping = threading.Event()
        self._between = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.recovered = threading.Event()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ask for the end after the step under way."""
        self._stopping.set()

    def join(self) -> None:
        """Wait for that end."""
        self._thread.join()

    def pause(self) -> threading.Lock:
        """A lock that holds the worker between two steps."""
        return self._between

    def _run(self) -> None:
        name_thread(self.name)
        failures = 0
        while not self._stopping.is_set():
            try:
                self._recover()
                self.recovered.set()
                while not self._stopping.is_set():
                    with self._between:
                        self._step(STEP_TIMEOUT_S)
                    failures = 0
                    self._stopping.wait(0)  # lets whoever waits for the pause take it
            except StateError as error:
                self._failed(self.name, error)
                return
            except (LogUnavailable, StoreUnavailable) as error:
                logger.warning("%s waits: %s", self.name, error)
                self._stopping.wait(error.retry_after_s)
            except Exception as error:
                if disk_full(error):
                    logger.warning("%s waits until its disk has room: %s", self.name, error)
                    self._stopping.wait(_FULL_RETRY_S)
                    continue
                logger.exception("%s starts over from its last commit", self.name)
                if failures == len(_RETRY_S):
                    self._failed(self.name, error)
                    return
                self._stopping.wait(_RETRY_S[failures])
                failures += 1
