"""Dimensions in Redis behind a columnar cache.

A batch waits for Redis no longer than ``dimensions.timeout``, whatever Redis or the network does: one other thread does the
asking, and is left alone when the time is over. Answers that came until then count. With the breaker open nobody waits at
all; a probe goes out in that thread beside the batches.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eventmill.core.clock import parse_duration_ms
from eventmill.core.config import DimensionsConfig
from eventmill.core.errors import StoreError
from eventmill.core.schema import DIMENSION_NAMES, EVENT
from eventmill.core.threads import name_thread
from eventmill.kernels.arrow import Int32s, as_array, as_batch, column
from eventmill.kernels.enrich import Enricher, joined
from eventmill.process.dimensions.breaker import Breaker, State
from eventmill.process.dimensions.cache import ABSENT, Cache
from eventmill.process.dimensions.redis_table import NONSENSE, Fields, RedisTable, Reply
from eventmill.process.dimensions.source import Told

logger = logging.getLogger(__name__)

_STRANGER: Final = -1
_NONSENSE: Final = -2
#: Distinct combinations of country, segment and tier; with more the cache begins anew.
_WORDS_MAX: Final = 100_000
_MEND_TIMEOUT_S: Final = 5.0
_FIELDS: Final = pa.schema([EVENT.field(name) for name in DIMENSION_NAMES])


class _Words:
    """Distinct combinations, numbered."""

    def __init__(self) -> None:
        self._numbers: dict[Fields, int] = {}
        self._table: pa.RecordBatch | None = None

    def __len__(self) -> int:
        return len(self._numbers)

    def number(self, fields: Fields) -> int:
        known = self._numbers.get(fields)
        if known is None:
            known = self._numbers[fields] = len(self._numbers)
            self._table = None
        return known

    def table(self) -> pa.RecordBatch:
        """The combinations, then two rows of nulls."""
        if self._table is None:
            rows = [*self._numbers, *[(None,) * len(DIMENSION_NAMES)] * 2]
            columns = [pa.array(values, pa.string()) for values in zip(*rows, strict=True)]
            plain = pa.RecordBatch.from_arrays(columns, list(DIMENSION_NAMES))
            self._table = plain.cast(_FIELDS)
        return self._table


class CachedDimensions:
    """See ``source.Dimensions``. Raises ``ConfigError`` for a URL that is none; whether Redis answers does not matter here.

    A user whom Redis does not know has nulls and no flag. One whose look-up failed is unknown, and asked for again with the
    next batch; one whose key makes no sense is unknown for ``negative_ttl``.
    """

    def __init__(self, config: DimensionsConfig, told: Told, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._config, self._told, self._clock = config, told, clock
        self._timeout_s = parse_duration_ms(config.timeout) / 1000
        self._slow_s = parse_duration_ms(config.slow) / 1000
        self._ttl_s = parse_duration_ms(config.ttl) / 1000
        self._negative_ttl_s = parse_duration_ms(config.negative_ttl) / 1000
        self._table = RedisTable(config, timeout_s=self._timeout_s)
        self.cache = Cache(config.entries_max)
        self._words = _Words()
        self.breaker = Breaker(
            config.breaker_errors, parse_duration_ms(config.breaker_pause) / 1000, clock, self._turned
        )
        self._asker = ThreadPoolExecutor(1, "dimensions", name_thread, ("dimensions",))
        self._left_alone: Future[None] | None = None
        self._probe: Future[None] | None = None
        told.turned(State.CLOSED)

    def _turned(self, state: State) -> None:
        if state is State.OPEN and self._probe is None:
            logger.warning("Redis is left alone until it answers; users' dimensions are unknown and flagged meanwhile")
        elif state is State.CLOSED:
            logger.info("Redis answers again")
        self._told.turned(state)

    def apply(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The batch with the dimension columns."""
        rows = as_batch(batch)
        users = as_array(column(rows, "user_id"), pa.string())
        if len(self._words) > _WORDS_MAX:
            self._words = _Words()
            self.cache.clear()
        found = self.cache.find(users, self._clock())
        absent = np.flatnonzero(found == ABSENT)
        with_user = len(users) - users.null_count
        if len(absent):
            wanted = users.take(pa.array(absent))
            distinct = pc.unique(wanted)
            answers = self._asked(distinct)
            found[absent] = answers[pc.index_in(wanted, distinct).to_numpy(zero_copy_only=False)]
        words = self._words.table()
        unknown = words.num_rows - 2
        known = np.where(found >= 0, found, np.int32(unknown + 1))
        lost = (found == ABSENT) | (found == _NONSENSE)
        known[lost] = unknown
        if with_user:
            self._told.joined(with_user - len(absent), len(absent), int(np.count_nonzero(lost)))
        return joined(rows, words, known.astype(np.int32, copy=False))

    def _asked(self, users: pa.Array) -> Int32s:
        """Each one's number, ``ABSENT`` where there is no answer; what there is goes to the cache."""
        replies = self._replies(users.cast(pa.binary()).to_pylist())
        numbers = np.full(len(users), ABSENT, np.int32)
        numbers[: len(replies)] = [self._number(reply) for reply in replies]
        nonsense = int(np.count_nonzero(numbers == _NONSENSE))
        if nonsense:
            self._told.nonsense(nonsense)
        answered = numbers[: len(replies)]
        now = self._clock()
        until = np.where(answered >= 0, now + self._ttl_s, now + self._negative_ttl_s)
        self.cache.put(users.slice(0, len(replies)), answered, until)
        return numbers

    def _number(self, reply: Reply) -> int:
        if isinstance(reply, tuple):
            return self._words.number(reply)
        return _NONSENSE if reply is NONSENSE else _STRANGER

    def _replies(self, users: list[bytes]) -> list[Reply]:
        """As many as came in time, the first ones first."""
        if not self._may_ask():
            return []
        begun = time.perf_counter()
        came: list[list[Reply]] = []
        took: list[float] = []
        enough = threading.Event()

        def ask() -> None:
            since = time.perf_counter()
            for replies in self._table.ask(users, enough.is_set):
                took.append(time.perf_counter() - since)
                came.append(replies)
                since = time.perf_counter()

        asking = self._asker.submit(ask)
        failed = self._outcome(asking)
        enough.set()
        replies = [reply for chunk in list(came) for reply in chunk]
        failed = failed or len(replies) < len(users)
        self._told.asked(len(users), time.perf_counter() - begun, failed)
        # What is not answered, or not one chunk of it at a decent pace: then waiting costs more than it brings.
        if failed or min(list(took)) > self._slow_s:
            self.breaker.failed()
        else:
            self.breaker.succeeded()
        return replies

    def _outcome(self, asking: Future[None]) -> bool:
        """Wait for it; whether it failed."""
        try:
            asking.result(self._timeout_s)
        except TimeoutError:
            self._left_alone = asking
            return True
        except StoreError as error:
            logger.debug("%s", error)
            return True
        return False

    def _may_ask(self) -> bool:
        """Whether the breaker is closed and the other thread free; sends the probe that is due, and takes its answer."""
        if self._left_alone is not None:
            if not self._left_alone.done():
                if self.breaker.state is State.CLOSED:
                    self.breaker.failed()
                return False
            self._left_alone = None
        if self._probe is not None and self._probe.done():
            probe, self._probe = self._probe, None
            if probe.exception() is None:
                self.breaker.succeeded()
            else:
                self.breaker.failed()
        if self.breaker.due:
            self.breaker.probe()
            self._probe = self._asker.submit(self._ping)
        return self.breaker.state is State.CLOSED

    def _ping(self) -> None:
        since = time.perf_counter()
        self._table.ping()
        if time.perf_counter() - since > self._slow_s:
            raise StoreError("Redis answers, but slowly; see dimensions.slow")

    def mend(self, users: pa.Array) -> Enricher | None:
        """Those who have an answer; strangers among them with nulls."""
        table = RedisTable(self._config, timeout_s=max(_MEND_TIMEOUT_S, self._timeout_s))
        replies: list[Reply] = []
        try:
            for chunk in table.ask(users.cast(pa.binary()).to_pylist()):
                replies += chunk
        except StoreError as error:
            logger.warning("%s; what is flagged is put right another time", error)
        finally:
            table.close()
        known = [row for row, reply in enumerate(replies) if reply is not NONSENSE]
        if not known:
            return None
        nothing = (None,) * len(DIMENSION_NAMES)
        values = zip(*(replies[row] or nothing for row in known), strict=True)
        columns = [users.take(pa.array(known)), *(pa.array(one, pa.string()) for one in values)]
        return Enricher(pa.table(columns, ["user_id", *DIMENSION_NAMES]))

    def close(self) -> None:
        """Does not wait for a look-up under way."""
        self._asker.shutdown(wait=False, cancel_futures=True)
        self._table.close()
