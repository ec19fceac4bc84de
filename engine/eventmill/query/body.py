"""What the bodies of several kinds of question have in common, checked. Every function raises ``QueryError`` naming the key."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from eventmill.core.clock import parse_duration_ms
from eventmill.core.errors import QueryError
from eventmill.query.conditions import Condition, read_filters
from eventmill.query.fields import TIME_COLUMNS, Field, Parameters, parse_field, parse_time
from eventmill.query.routing import Span

INTERVALS: Final = {"minute": 60_000, "hour": 3_600_000, "day": 86_400_000}
LIMIT: Final = 20
LIMIT_MAX: Final = 1_000
BREAKDOWNS_MAX: Final = 3
EVENT_CHARS_MAX: Final = 4_096
#: Who can be counted: SQL for each event's, and the condition that it has one. One type in both stores.
WHO: Final = {
    "devices": ("toString(device_id)", "1"),
    "users": ("CAST(assumeNotNull(user_id), 'String')", "user_id IS NOT NULL"),
}


def digest(who: str) -> str:
    """SQL for 128 bits that stand for somebody: they are compared and kept for a third of the text's cost. Among 2^40 devices
    there are two that share theirs with a probability of 2^-49."""
    return f"xxh3_128({who})"


def read_object(body: Any, keys: Sequence[str], where: str = "the body") -> dict[str, Any]:
    """A JSON object that has no other keys."""
    if not isinstance(body, dict):
        raise QueryError(f"{where} must be a JSON object with {', '.join(keys)}")
    unknown = sorted(set(body) - set(keys))
    if unknown:
        of = "" if where == "the body" else f" in {where}"
        raise QueryError(f"there is no key {unknown[0][:100]!r}{of}; the keys are {', '.join(keys)}")
    return body


def read_span(body: dict[str, Any]) -> Span:
    """``from`` and ``to``."""
    span = Span(parse_time(body.get("from"), "from"), parse_time(body.get("to"), "to"))
    if span.end <= span.start:
        raise QueryError("to must lie after from")
    return span


def read_event(given: Any, where: str = "event") -> str | None:
    """An event's name, or null."""
    if given is not None and (not isinstance(given, str) or len(given) > EVENT_CHARS_MAX):
        raise QueryError(f"{where} must be an event's name, or null for all events")
    return given


def read_number(body: dict[str, Any], key: str, default: int, most: int) -> int:
    """A whole number from 1 to ``most``."""
    given = body.get(key, default)
    if isinstance(given, bool) or not isinstance(given, int) or not 1 <= given <= most:
        raise QueryError(f"{key} must be a number from 1 to {most}")
    return given


def read_choice(body: dict[str, Any], key: str, choices: Collection[str], default: str) -> str:
    """One of a few words."""
    given = body.get(key, default)
    if not isinstance(given, str) or given not in choices:
        raise QueryError(f"{key} is {str(given)[:100]!r}; it is one of {', '.join(choices)}")
    return given


def read_breakdown(given: Any) -> Field | None:
    """A field, or null."""
    if given is None:
        return None
    of = parse_field(given, "breakdown")
    if of.name == "event_id" or of.column in TIME_COLUMNS:
        raise QueryError(f"breakdown cannot be {of.name}: nearly every event has another")
    return of


def read_breakdowns(given: Any) -> tuple[Field, ...]:
    """A field, a list of up to three, or null."""
    if not isinstance(given, list):
        one = read_breakdown(given)
        return () if one is None else (one,)
    if not 1 <= len(given) <= BREAKDOWNS_MAX:
        raise QueryError(f"breakdown must be a field, or a list of 1 to {BREAKDOWNS_MAX} fields")
    found = tuple(of for of in map(read_breakdown, given) if of is not None)
    if len({of.name for of in found}) < len(given):
        raise QueryError("breakdown names a field twice, or null: name each once")
    return found


def read_duration(given: Any, where: str, most_ms: int) -> int:
    """A length of time like ``"30m"``, in ms."""
    try:
        if isinstance(given, bool) or not isinstance(given, (str, int)) or (isinstance(given, str) and len(given) > 50):
            raise ValueError
        found = parse_duration_ms(given)
    except ValueError:
        raise QueryError(f"{where} is {str(given)[:100]!r}; write a length of time like 90s, 30m, 24h or 7d") from None
    if not 1 <= found <= most_ms:
        raise QueryError(f"{where} must be a length of time from 1ms to {most_ms // INTERVALS['day']}d")
    return found


@dataclass(frozen=True, slots=True)
class Selection:
    """Events of one name (null: any) that meet all filters."""

    event: str | None
    filters: tuple[Condition, ...]

    def sql(self, parameters: Parameters) -> str:
        """The condition; never null."""
        parts = [] if self.event is None else [parameters.named([self.event])]
        parts += [each.sql(parameters) for each in self.filters]
        return f"ifNull({' AND '.join(parts)}, 0)" if parts else "1"


def read_selection(given: Any, where: str) -> Selection:
    """``{"event", "filters"}``; null is any event."""
    given = read_object({} if given is None else given, ("event", "filters"), where)
    return Selection(
        read_event(given.get("event"), f"{where}.event"), read_filters(given.get("filters"), f"{where}.filters")
    )


def named(selections: Sequence[Selection]) -> frozenset[str] | None:
    """The names of the only events that can be in one of them; null when it may be any."""
    names = frozenset(each.event for each in selections if each.event is not None)
    return None if any(each.event is None for each in selections) else names
