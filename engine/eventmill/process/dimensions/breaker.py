"""A circuit breaker: after some failures in a row nothing is asked until a probe has come back."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum


class State(IntEnum):
    """As the metric has it."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class Breaker:
    """Not thread-safe. ``clock`` gives seconds that never go back; ``told`` hears of each change.

    After a probe that succeeded one failure opens it again, until something else has succeeded.
    """

    def __init__(
        self, failures_max: int, pause_s: float, clock: Callable[[], float], told: Callable[[State], None]
    ) -> None:
        self._failures_max, self._pause_s, self._clock, self._told = failures_max, pause_s, clock, told
        self._failures = 0
        self._retry_at = 0.0
        self.state = State.CLOSED

    def _turn(self, state: State) -> None:
        if state is not self.state:
            self.state = state
            self._told(state)

    @property
    def due(self) -> bool:
        """It is open, and a probe may go out."""
        return self.state is State.OPEN and self._clock() >= self._retry_at

    def probe(self) -> None:
        """A probe goes out."""
        self._turn(State.HALF_OPEN)

    def succeeded(self) -> None:
        """Of an answer or a probe."""
        self._failures = self._failures_max - 1 if self.state is State.HALF_OPEN else 0
        self._turn(State.CLOSED)

    def failed(self) -> None:
        """Of an answer or a probe."""
        self._failures += 1
        if self.state is not State.CLOSED or self._failures >= self._failures_max:
            self._retry_at = self._clock() + self._pause_s
            self._turn(State.OPEN)
