"""Filters of a question: conditions, and groups of them of which all, or any, must hold, in each other as wanted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from eventmill.core.errors import QueryError
from eventmill.query.fields import Field, Filter, Parameters, parse_filter

#: Single conditions of one list, and how deep groups may stand in one another.
FILTERS_MAX: Final = 50
DEPTH_MAX: Final = 5
_JOINED: Final = {"all": " AND ", "any": " OR "}


@dataclass(frozen=True, slots=True)
class Group:
    """Conditions joined by AND (``all``) or OR (``any``)."""

    joined: str
    members: tuple[Condition, ...]

    @property
    def fields(self) -> tuple[Field, ...]:
        """What its conditions look at."""
        return tuple(of for member in self.members for of in member.fields)

    def sql(self, parameters: Parameters) -> str:
        """The condition; null, which is as good as false, where members compare a field that an event lacks."""
        return f"({_JOINED[self.joined].join(member.sql(parameters) for member in self.members)})"


Condition: TypeAlias = Filter | Group


def read_filters(given: Any, where: str = "filters") -> tuple[Condition, ...]:
    """A list of conditions that an event must all meet, or null. Raises ``QueryError`` naming the place."""
    given = [] if given is None else given
    if not isinstance(given, list):
        raise QueryError(f"{where} must be a list of at most {FILTERS_MAX}")
    found = _members(given, where, 1)
    if sum(len(each.fields) for each in found) > FILTERS_MAX:
        raise QueryError(f"{where} must hold at most {FILTERS_MAX} conditions")
    return found


def _members(given: list[Any], where: str, depth: int) -> tuple[Condition, ...]:
    if len(given) > FILTERS_MAX:
        raise QueryError(f"{where} must be a list of at most {FILTERS_MAX}")
    return tuple(_condition(each, f"{where}[{i}]", depth) for i, each in enumerate(given))


def _condition(given: Any, where: str, depth: int) -> Condition:
    keys = sorted(set(given) & set(_JOINED)) if isinstance(given, dict) else []
    if not keys:
        return parse_filter(given, where)
    (joined, *more) = keys
    if more or len(given) > 1:
        raise QueryError(f'{where} must be {{"any": [...]}} or {{"all": [...]}} without other keys')
    if depth >= DEPTH_MAX:
        raise QueryError(f"{where}: groups may stand in one another {DEPTH_MAX - 1} deep")
    if not isinstance(given[joined], list) or not given[joined]:
        raise QueryError(f"{where}.{joined} must be a list of at least one condition")
    return Group(joined, _members(given[joined], f"{where}.{joined}", depth + 1))
