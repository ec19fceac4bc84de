"""Properties that schemas declare, as columns of their own: made by the real-time store, used by the query service.

A column holds what ``JSONExtract`` gives of the JSON, so an answer is the same with it and without. Only members of the
properties themselves are typed, not what lies deeper.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

#: Of the name of a property; others stay in the JSON only.
_NAME: Final = re.compile(r"[^\\`'\"{}%\x00-\x1f\x7f]{1,128}")
_PLAIN: Final = re.compile(r"[A-Za-z0-9_]{1,48}")
PREFIX: Final = "p_"


class Kind(StrEnum):
    """What a column holds: ``NUMBER`` what the property is as a number, ``WORD`` what it is as text (of few values)."""

    NUMBER = "number"
    WORD = "word"

    @property
    def extracted(self) -> str:
        """The ClickHouse type that is extracted from the JSON."""
        return "Nullable(Float64)" if self is Kind.NUMBER else "Nullable(String)"

    @property
    def stored(self) -> str:
        """The column's type."""
        return "Nullable(Float64)" if self is Kind.NUMBER else "LowCardinality(Nullable(String))"


@dataclass(frozen=True, slots=True)
class TypedProperty:
    """A property, what it holds, and the events whose schemas declare it so, in order."""

    name: str
    kind: Kind
    events: tuple[str, ...]

    @property
    def column(self) -> str:
        """Its column: the name where that is plain, else what is plain of it and a digest."""
        if _PLAIN.fullmatch(self.name):
            return f"{PREFIX}{self.name}"
        plain = re.sub(r"[^A-Za-z0-9_]+", "_", self.name)[:32]
        return f"{PREFIX}{plain}_{hashlib.sha256(self.name.encode()).hexdigest()[:8]}"

    @property
    def extract(self) -> str:
        """SQL for the value, from the JSON alone."""
        return f"JSONExtract(properties, '{self.name}', '{self.kind.extracted}')"


@dataclass(frozen=True, slots=True)
class Typed:
    """The typed properties of a store, by name."""

    properties: Mapping[str, TypedProperty]

    @classmethod
    def of(cls, properties: Iterable[TypedProperty]) -> Typed:
        """In the order of their names."""
        return cls({each.name: each for each in sorted(properties, key=lambda each: each.name)})

    @property
    def numbers(self) -> list[TypedProperty]:
        """Those that are numbers."""
        return [each for each in self.properties.values() if each.kind is Kind.NUMBER]

    def column(self, name: str, kind: Kind) -> str | None:
        """The column that holds a property as ``kind``, if there is one."""
        found = self.properties.get(name)
        return found.column if found is not None and found.kind is kind else None

    def rolls_up(self, name: str, event: str) -> bool:
        """Whether the roll-ups of numbers hold the property of all events of that name."""
        found = self.properties.get(name)
        return found is not None and found.kind is Kind.NUMBER and event in found.events


NOTHING: Final = Typed({})


def can_be_typed(name: str) -> bool:
    """Whether a property of that name can have a column."""
    return bool(_NAME.fullmatch(name))
