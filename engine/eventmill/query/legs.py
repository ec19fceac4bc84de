"""Which tables answer for which stretches of a trend: roll-ups where they have all that is asked for, else single events.

A roll-up answers for whole lengths of its own that lie in one bucket; what sticks out at the ends of a stretch is read from
the next finer one, and in the end from the events themselves. Of the lake, files that are not rolled up yet are read, too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from eventmill.core.lake_rollups import DAYS, HOURS, file_key
from eventmill.core.lakefile import LakeFile
from eventmill.kernels.partition import OVERFLOW
from eventmill.query.fields import Parameters
from eventmill.query.routing import Route, Span

MINUTE_MS: Final = 60_000
DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class RollUp:
    """A table of partial results: ``column`` is the beginning of the length of time that a row is about. ``of_numbers``: it
    has the values of typed properties, of each some rows of its own."""

    name: str
    column: str
    length_ms: int
    of_numbers: bool = False

    @property
    def at(self) -> str:
        """SQL for that beginning in ms since the epoch."""
        return f"toInt64(toUnixTimestamp(toDateTime({self.column}, 'UTC'))) * 1000"

    def within(self, spans: Sequence[Span], parameters: Parameters) -> str:
        """The condition on the time."""
        return _any(f"{self.column} >= {self._moment(span.start, parameters)} AND "
                    f"{self.column} < {self._moment(span.end, parameters)}" for span in spans)  # fmt: skip

    def _moment(self, at_ms: int, parameters: Parameters) -> str:
        seconds = f"toDateTime({parameters.bind(at_ms // 1_000, 'UInt32')}, 'UTC')"
        return f"toDate({seconds})" if self.length_ms == DAY_MS else seconds


LAKE_HOURS: Final = RollUp(HOURS.name, HOURS.column, HOURS.length_ms)
LAKE_DAYS: Final = RollUp(DAYS.name, DAYS.column, DAYS.length_ms)
_LENGTHS: Final = (("1d", "day", DAY_MS), ("1h", "hour", HOURS.length_ms), ("1m", "minute", MINUTE_MS))
IN_REALTIME: Final = tuple(RollUp(f"eventmill.events_{name}", column, ms) for name, column, ms in _LENGTHS)
OF_NUMBERS: Final = tuple(RollUp(f"eventmill.numbers_{name}", column, ms, True) for name, column, ms in _LENGTHS)
IN_LAKE: Final = (LAKE_DAYS, LAKE_HOURS)


@dataclass(frozen=True, slots=True)
class Leg:
    """One table, and what is read of it. ``files``: the keys of the lake's files whose roll-ups count, or the names of those
    whose events do (null: all). ``by_date``: the dates of the lake's events say all that is asked of their time."""

    table: RollUp | None
    spans: tuple[Span, ...]
    files: tuple[LakeFile, ...] | None = None
    by_date: bool = False


def cut(span: Span, lengths: Sequence[int]) -> list[tuple[int, Span]]:
    """``span`` in pieces of whole ``lengths`` (descending), each as long as can be; what is left over has length 0."""
    if span.start >= span.end:
        return []
    if not lengths:
        return [(0, span)]
    length, finer = lengths[0], lengths[1:]
    start, end = -(-span.start // length) * length, span.end // length * length
    if start >= end:
        return cut(span, finer)
    return [*cut(Span(span.start, start), finer), (length, Span(start, end)), *cut(Span(end, span.end), finer)]


def pieces(
    spans: Iterable[tuple[Span, int]], bucket_ms: int, roll_ups: Sequence[RollUp]
) -> dict[RollUp | None, list[Span]]:
    """What each roll-up (null: the events) has to answer of ``spans``, of which each comes with the time by which its events
    count later."""
    found: dict[RollUp | None, list[Span]] = {}
    for span, later in spans:
        fits = {
            each.length_ms: each for each in roll_ups if not bucket_ms % each.length_ms and not later % each.length_ms
        }
        for length, piece in cut(span, sorted(fits, reverse=True)):
            found.setdefault(fits.get(length), []).append(piece)
    return found


def realtime_legs(spans: Iterable[tuple[Span, int]], bucket_ms: int, roll_ups: Sequence[RollUp]) -> list[Leg]:
    """The real-time store's, which has ``roll_ups`` for them."""
    found = pieces(spans, bucket_ms, roll_ups)
    return [Leg(table, tuple(parts)) for table, parts in found.items()]


def lake_legs(
    way: Route, spans: Iterable[tuple[Span, int]], bucket_ms: int, events: Collection[str] | None, *, rolls_up: bool
) -> list[Leg]:
    """The lake's. Events of different stretches are read apart, since each needs other files."""
    if not rolls_up or way.files is None or not any(map(way.is_rolled_up, way.files)):
        return [leg for span, later in spans for leg in _of_events(span, later, bucket_ms)]
    legs = []
    for table, parts in pieces(spans, bucket_ms, IN_LAKE).items():
        if table is None:
            legs += [Leg(None, (span,)) for span in parts]
            continue
        files = of_spans(way.files, parts, events)
        legs.append(Leg(table, tuple(parts), tuple(file for file in files if way.is_rolled_up(file))))
        missing = tuple(file for file in files if not way.is_rolled_up(file))
        legs += [Leg(None, (span,), of_spans(missing, [span], events), by_date=table is LAKE_DAYS) for span in parts]
    return [leg for leg in legs if leg.files is None or leg.files]


def _of_events(span: Span, later: int, bucket_ms: int) -> list[Leg]:
    lengths = [] if bucket_ms % DAY_MS or later % DAY_MS else [DAY_MS]
    return [Leg(None, (piece,), by_date=length == DAY_MS) for length, piece in cut(span, lengths)]


def of_spans(files: Iterable[LakeFile], spans: Sequence[Span], events: Collection[str] | None) -> tuple[LakeFile, ...]:
    """The files that may have such events in such a time; null: events of any name."""
    groups = None if events is None else {*events, OVERFLOW}
    return tuple(
        file
        for file in files
        if (groups is None or file.group in groups)
        and any(file.start_ms < span.end and span.start <= file.end_ms for span in spans)
    )


def of_files(leg: Leg) -> str:
    """The condition on the files; empty for all."""
    if leg.files is None:
        return ""
    if leg.table is None:
        listed = ", ".join(f"'{file.name}'" for file in leg.files)
        return f"_file IN ({listed})"
    return f"file IN ({', '.join(str(file_key(file.name)) for file in leg.files)})"


def rows_of(files: Iterable[LakeFile]) -> int:
    """Events in them."""
    return sum(file.rows for file in files)


def _any(conditions: Iterable[str]) -> str:
    listed = list(conditions)
    return listed[0] if len(listed) == 1 else f"({' OR '.join(f'({each})' for each in listed)})"
