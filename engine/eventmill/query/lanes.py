"""A fair pool of threads: whoever asks has a lane, and lanes take turns.

So a key with a hundred questions in line delays another key's one question by at most those that run already.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

from eventmill.core.threads import name_thread

T = TypeVar("T")


class FairPool:
    """Safe to share between threads. ``size`` questions run at a time, over all lanes."""

    def __init__(self, size: int, name: str = "query") -> None:
        self._changed = threading.Condition()
        self._lanes: deque[Lane] = deque()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, args=(name,), name=f"{name}_{number}", daemon=True)
            for number in range(size)
        ]
        for thread in self._threads:
            thread.start()

    def lane(self, running_max: int) -> Lane:
        """A new lane, of which at most ``running_max`` run at a time."""
        made = Lane(self, running_max)
        with self._changed:
            self._lanes.append(made)
        return made

    def put(self, lane: Lane, task: Callable[[], None], future: Future[Any]) -> None:
        """Append to a lane. Raises ``RuntimeError`` once the pool is closed, as executors do."""
        with self._changed:
            if self._closed:
                raise RuntimeError("the pool is closed")
            lane.waiting.append((task, future))
            self._changed.notify()

    def _work(self, name: str) -> None:
        name_thread(name)
        while True:
            with self._changed:
                lane = self._next()
                while lane is None and not self._closed:
                    self._changed.wait()
                    lane = self._next()
                if lane is None:
                    return
                task, _ = lane.waiting.popleft()
                lane.running += 1
            try:
                task()
            finally:
                with self._changed:
                    lane.running -= 1
                    self._changed.notify_all()

    def _next(self) -> Lane | None:
        """The first lane in turn with something that may run; it goes to the end of the line."""
        for _ in range(len(self._lanes)):
            lane = self._lanes[0]
            self._lanes.rotate(-1)
            if lane.waiting and lane.running < lane.running_max:
                return lane
        return None

    def close(self) -> None:
        """Wait for what runs; what waits is cancelled."""
        with self._changed:
            self._closed = True
            waiting = [each for lane in self._lanes for each in lane.waiting]
            for lane in self._lanes:
                lane.waiting.clear()
            self._changed.notify_all()
        for _, future in waiting:
            future.cancel()
        for thread in self._threads:
            thread.join()


class Lane(Executor):
    """One asker's place in the pool."""

    def __init__(self, pool: FairPool, running_max: int) -> None:
        self._pool = pool
        self.running_max = running_max
        self.running = 0
        self.waiting: deque[tuple[Callable[[], None], Future[Any]]] = deque()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """As ``Executor.submit``."""
        future: Future[T] = Future()

        def task() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                found = fn(*args, **kwargs)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(found)

        self._pool.put(self, task, future)
        return future
