"""Events that are called otherwise now: what is stored under an old name is read under the new one.

Nothing that is stored changes. A question that names an old name means the new one; both stores, the roll-ups and the
aggregates are asked for all names that an event has had.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True, repr=False)
class Renames:
    """``(old name, new name)`` each, by the old name; a new name may have been renamed again."""

    pairs: tuple[tuple[str, str], ...] = ()

    @staticmethod
    def parse(given: Any) -> Renames:
        """Of ``{"old name": "new name"}``, or that as JSON. Raises ``ValueError`` telling what is wrong."""
        if isinstance(given, Renames):
            return given
        if isinstance(given, str):
            try:
                given = json.loads(given or "{}")
            except json.JSONDecodeError:
                raise ValueError('it must be a JSON object like {"old name": "new name"}') from None
        if not isinstance(given, Mapping):
            raise ValueError('it must be a table with lines like "old name" = "new name"')
        for old, new in given.items():
            if not isinstance(new, str) or not new or not old:
                raise ValueError(f"{old!r} must be renamed to an event's name")
        found = Renames(tuple(sorted(given.items())))
        for old in given:
            way = found._way(old)
            if way[-1] in way[:-1]:
                raise ValueError(f"the names go round in a circle: {' -> '.join(way)}; take one of these out")
        return found

    def __bool__(self) -> bool:
        return bool(self.pairs)

    def __str__(self) -> str:
        """What ``parse`` takes."""
        return json.dumps(dict(self.pairs), ensure_ascii=False)

    __repr__ = __str__

    def _way(self, name: str) -> list[str]:
        """The names that an event has had from this one on, the newest last; in a circle, that which comes again."""
        found, steps = [name], dict(self.pairs)
        while found[-1] in steps:
            found.append(steps[found[-1]])
            if found[-1] in found[:-1]:
                break
        return found

    def now(self, name: str) -> str:
        """What an event of that name is called now."""
        return self._way(name)[-1]

    def resolved(self) -> dict[str, str]:
        """Every old name, and what it is called now."""
        return {old: self.now(old) for old, _ in self.pairs}

    def stored(self, names: Iterable[str]) -> frozenset[str]:
        """All names under which events may be stored that one of these names means."""
        meant = {self.now(name) for name in names}
        return frozenset(meant | {old for old, new in self.resolved().items() if new in meant})

    def older(self, name: str) -> tuple[str, ...]:
        """The names that have become this one."""
        return tuple(old for old, _ in self.pairs if name in self._way(old)[1:])


AS_STORED: Final = Renames()
