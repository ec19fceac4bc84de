"""A schema tried on stored events before it is published."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson
import pyarrow as pa

from eventmill.core.errors import SchemaError
from eventmill.core.redact import NOTHING, Redaction
from eventmill.process.schemas.columnar import Checker
from eventmill.process.schemas.sets import Schema, SchemaSet

_EXAMPLES_MAX: Final = 3
_TEXT_MAX: Final = 200


@dataclass(slots=True)
class Trial:
    """What a schema says of stored events: per ``path: rule`` how many it would reject, and examples of their properties."""

    events: int = 0
    rejected: int = 0
    rules: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For machines; the commonest rule first."""
        rules = [
            {"rule": rule, "events": count, "examples": self.examples[rule]} for rule, count in self.rules.most_common()
        ]
        return {"events": self.events, "rejected": self.rejected, "rules": rules}


def try_schema(checker: Checker, columns: Iterable[pa.StringArray], hide: Redaction = NOTHING) -> Trial:
    """The trial of a schema on columns of properties; the examples are redacted by ``hide``."""
    trial = Trial()
    for column in columns:
        trial.events += len(column)
        for row, failure in checker.failures(column).items():
            rule = str(failure)
            trial.rejected += 1
            trial.rules[rule] += 1
            examples = trial.examples.setdefault(rule, [])
            if len(examples) < _EXAMPLES_MAX:
                event = hide.payload(b'{"properties":%s}' % column[row].as_py().encode())
                examples.append(event[len(b'{"properties":') : -1].decode()[:_TEXT_MAX])
    return trial


def read_document(path: Path) -> Any:
    """The JSON of a file. Raises ``SchemaError``."""
    try:
        return orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise SchemaError(f"{path} is not JSON: {error}") from error


def with_document(schemas: SchemaSet, event: str, document: Any, references: Mapping[str, Any]) -> SchemaSet:
    """The set with a further, newest version of an event's schema, which may refer to ``references`` (by URI)."""
    newest = schemas.newest(event)
    version = "1" if newest is None else f"{newest.version}+1"
    others = [schema for schema in schemas.schemas if (schema.event, schema.version) != (event, version)]
    return SchemaSet.of([*others, Schema(event, version, "trial", document, references)])
