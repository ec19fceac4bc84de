"""How long what is kept: the rules, and what the lake says it no longer has.

A date is a number of days since the epoch. ``before`` is always the first date that is kept whole.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Final

import orjson

from eventmill.core.clock import parse_duration_ms
from eventmill.core.config import Config
from eventmill.core.errors import ConfigError, StateError

DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class Rules:
    """``[retention]`` in milliseconds. See ``RetentionConfig``."""

    raw_ms: int
    aggregates_ms: int
    realtime_ms: int
    downsample_ms: int
    names: frozenset[str]
    per_minute: int
    cold_ms: int
    cold_folder: str

    @property
    def downsamples(self) -> bool:
        """Whether any event is kept as aggregates sooner than others."""
        return bool(self.names) or self.per_minute > 0


def before(now_ms: int, kept_ms: int) -> int:
    """The first date of which nothing is older than ``kept_ms``."""
    return max((now_ms - kept_ms) // DAY_MS, 0)


def rules(config: Config) -> Rules:
    """The rules as set. Raises ``ConfigError`` where one would take what another one needs."""
    given = config.retention
    found = Rules(
        raw_ms=parse_duration_ms(given.raw),
        aggregates_ms=parse_duration_ms(given.aggregates),
        realtime_ms=parse_duration_ms(given.realtime),
        downsample_ms=parse_duration_ms(given.downsample_after),
        names=config.query.renames.stored(given.downsample_events),
        per_minute=given.downsample_per_minute,
        cold_ms=parse_duration_ms(given.cold_after),
        cold_folder=given.cold_folder,
    )
    # A late event may change the sessions of its day and of the next one, and for that it needs all their events.
    settled = parse_duration_ms(config.process.lateness) + 2 * DAY_MS
    # The rescue lane looks for twins there, and a trend by day asks for whole days.
    asked = max(parse_duration_ms(config.realtime.window), parse_duration_ms(config.dedup.window)) + DAY_MS
    for name, kept_ms, least_ms, why in (
        ("raw", found.raw_ms, settled, "process.lateness and two days"),
        ("downsample_after", found.downsample_ms, settled, "process.lateness and two days"),
        ("realtime", found.realtime_ms, asked, "realtime.window, or dedup.window, and a day"),
        ("aggregates", found.aggregates_ms, found.raw_ms, "retention.raw"),
    ):
        if kept_ms < least_ms:
            raise ConfigError(
                f"retention.{name} = {getattr(given, name)!r} is too short: it must be at least {why} "
                f"({-(-least_ms // 3_600_000)}h)"
            )
    return found


@dataclass(frozen=True, slots=True)
class Retired:
    """What has gone from the lake's events, and which state of the aggregates stands in for it.

    Of dates before ``raw_before`` the raw events may be gone, of the event names in ``events`` before their own dates, of all
    before ``aggregates_before`` the aggregates, too. ``minutes`` and ``sessions`` are the locations of the aggregate tables'
    metadata ("": none).
    """

    raw_before: int = 0
    aggregates_before: int = 0
    events: Mapping[str, int] = field(default_factory=dict)
    minutes: str = ""
    sessions: str = ""

    def text(self) -> str:
        """To be kept."""
        return orjson.dumps(asdict(self), option=orjson.OPT_SORT_KEYS).decode()

    @staticmethod
    def parse(text: str | None) -> Retired:
        """What ``text`` gave; null is nothing. Raises ``StateError``."""
        if text is None:
            return Retired()
        try:
            return Retired(**orjson.loads(text))
        except (orjson.JSONDecodeError, TypeError) as error:
            raise StateError(f"what the lake says of its aggregates does not read: {error}") from error

    @property
    def sessions_frozen_before(self) -> int:
        """Sessions of dates before it stay as they are: events that held them together may be gone."""
        last = max([self.raw_before, *self.events.values()])
        return last + 1 if last else 0

    def raw_from_ms(self, names: Collection[str] | None) -> int:
        """From when on (ms since the epoch) the raw events of those names (null: all) are all there."""
        of_names = self.events.values() if names is None else [self.events.get(name, 0) for name in names]
        first: int = max([self.raw_before, *of_names])
        return first * DAY_MS

    @property
    def aggregates_from_ms(self) -> int:
        """From when on (ms since the epoch) the aggregates are all there."""
        return self.aggregates_before * DAY_MS


@dataclass(frozen=True, slots=True)
class LakeView:
    """One state of the lake for those who ask: FROM expressions of the events and of the aggregates that stand in for those
    that are retired (null: none are). No event is in both."""

    events: str
    minutes: str | None = None
    sessions: str | None = None
    retired: Retired = field(default_factory=Retired)
