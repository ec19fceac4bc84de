"""The schemas in force at one time: of each event name every version, with what they refer to. Immutable."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import orjson
import xxhash

from eventmill.core.errors import FrameError
from eventmill.process.schemas.compile import canonical

_DIGITS: Final = re.compile(r"(\d+)")


@dataclass(frozen=True, slots=True)
class Schema:
    """One version of an event's schema; ``references`` are the documents that it may refer to, by URI."""

    event: str
    version: str
    identity: str
    document: Any
    references: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For the log."""
        return {
            "event": self.event, "version": self.version, "identity": self.identity, "document": self.document,
            "references": dict(self.references),
        }  # fmt: skip


@dataclass(frozen=True)
class SchemaSet:
    """``available``: false while nobody knows the schemas; each event is accepted then, and flagged."""

    schemas: tuple[Schema, ...] = ()
    available: bool = True

    @classmethod
    def of(cls, schemas: Iterable[Schema]) -> SchemaSet:
        """A set in order, whatever the order given."""
        return cls(tuple(sorted(schemas, key=lambda schema: (schema.event, version_key(schema.version)))))

    @cached_property
    def by_event(self) -> Mapping[str, Mapping[str, Schema]]:
        """Per event name its versions, the newest last."""
        found: dict[str, dict[str, Schema]] = {}
        for schema in self.schemas:
            found.setdefault(schema.event, {})[schema.version] = schema
        return found

    def newest(self, event: str) -> Schema | None:
        """The event's newest version."""
        versions = self.by_event.get(event)
        return None if versions is None else list(versions.values())[-1]

    def dump(self) -> bytes:
        """The whole set as JSON; equal sets give equal bytes."""
        return canonical({"available": self.available, "schemas": [schema.as_dict() for schema in self.schemas]})

    @cached_property
    def digest(self) -> str:
        """Names the set by its content."""
        return str(xxhash.xxh3_128_hexdigest(self.dump()))


#: No schemas at all: nothing is checked.
NO_SCHEMAS: Final = SchemaSet()
#: Nobody knows the schemas.
UNAVAILABLE: Final = SchemaSet(available=False)


def load_set(content: bytes) -> SchemaSet:
    """The set that ``dump`` wrote. Raises ``FrameError``."""
    try:
        tree = orjson.loads(content)
        return SchemaSet(tuple(Schema(**given) for given in tree["schemas"]), tree["available"])
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise FrameError(f"a record of schemas does not read: {error}") from error


def version_key(version: str) -> tuple[tuple[bool, int, str], ...]:
    """Orders versions as people count: 2 before 10, 1.9 before 1.10."""
    parts = _DIGITS.split(version)
    return tuple((part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts if part)
