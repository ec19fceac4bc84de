"""Where dimensions come from, and who is told how it goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from eventmill.core.clock import parse_duration_ms
from eventmill.core.config import DimensionsConfig
from eventmill.core.errors import ConfigError
from eventmill.kernels.enrich import Enricher
from eventmill.process.dimensions.breaker import State
from eventmill.process.dimensions.files import FileDimensions


class Dimensions(Protocol):
    """One thread calls ``apply``; any thread ``mend``."""

    def apply(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The batch with country, segment and tier; those who are unknown have nulls and ``Flag.DIMENSIONS_UNKNOWN``."""
        ...

    def mend(self, users: pa.Array) -> Enricher | None:
        """Those of ``users`` (distinct strings) of whom it can be said now what they are. ``None``: of nobody."""
        ...

    def close(self) -> None:
        """Let go of what is open."""
        ...


class Told(Protocol):
    """Hears what a cache before Redis does; all from the thread that calls ``apply``."""

    def joined(self, hits: int, misses: int, unknown: int) -> None:
        """Events with a user: answered by the cache, not so, and those that stayed unknown."""
        ...

    def asked(self, users: int, seconds: float, failed: bool) -> None:
        """One look-up of so many users."""
        ...

    def nonsense(self, users: int) -> None:
        """Users whose key holds another type than a hash, or no text."""
        ...

    def turned(self, state: State) -> None:
        """The breaker's state is another one."""
        ...


class Deaf:
    """Hears nothing."""

    def joined(self, hits: int, misses: int, unknown: int) -> None:
        """See ``Told``."""

    def asked(self, users: int, seconds: float, failed: bool) -> None:
        """See ``Told``."""

    def nonsense(self, users: int) -> None:
        """See ``Told``."""

    def turned(self, state: State) -> None:
        """See ``Told``."""


class NoDimensions:
    """Nobody is known and nothing is flagged, since nothing could put it right."""

    def __init__(self) -> None:
        self._enricher = Enricher.empty()

    def apply(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The batch with columns of nulls."""
        return self._enricher.apply(batch)

    def mend(self, users: pa.Array) -> Enricher | None:
        """Nobody."""

    def close(self) -> None:
        """Nothing is held open."""


def open_dimensions(
    config: DimensionsConfig, told: Told | None = None, *, clock: Callable[[], float] = time.monotonic
) -> Dimensions:
    """What ``[dimensions]`` names. ``clock`` gives seconds. Raises ``ConfigError``."""
    if config.redis:
        try:
            from eventmill.process.dimensions.cached import CachedDimensions
        except ImportError as error:
            raise ConfigError("dimensions.redis needs redis-py: pip install 'eventmill[redis]'") from error
        return CachedDimensions(config, told or Deaf(), clock=clock)
    if config.file:
        return FileDimensions(Path(config.file), ttl_s=parse_duration_ms(config.ttl) / 1000, clock=clock)
    return NoDimensions()
