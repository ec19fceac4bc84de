"""A batch against the schemas in force: which rows break which schema, and which nobody can judge yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from eventmill._native import schema as native
from eventmill.kernels.arrow import strings
from eventmill.process.schemas.columnar import Checker, Failure, gather
from eventmill.process.schemas.compile import member_program
from eventmill.process.schemas.sets import Schema, SchemaSet

#: An event may say which version of its schema it follows, by this member of ``context`` or ``properties``.
DECLARED: Final = "schemaVersion"
_MEMBER: Final = member_program(DECLARED)

Int32s = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Verdict:
    """``broken``: row → the schema and how it is broken. ``unknown``: rows whose schema is not known now."""

    broken: dict[int, tuple[Schema, Failure]]
    unknown: Bools


class Ruling:
    """The compiled set. A verdict is a function of the set and the row alone. Not thread-safe."""

    def __init__(self, schemas: SchemaSet) -> None:
        self.schemas = schemas
        self._events = list(schemas.by_event)
        self._names = pa.array(self._events, pa.string())
        self._checkers = {
            (schema.event, schema.version): Checker(schema.document, schema.references) for schema in schemas.schemas
        }

    def judge(self, batch: pa.RecordBatch) -> Verdict | None:
        """The verdict on a RAW batch; ``None`` when all of it is well."""
        if not self.schemas.available:
            return Verdict({}, np.ones(batch.num_rows, np.bool_)) if batch.num_rows else None
        if not self._events or batch.num_rows == 0:
            return None
        names = batch.column("event")
        of_word = pc.index_in(names.dictionary, value_set=self._names).fill_null(-1).to_numpy(zero_copy_only=False)
        if (of_word < 0).all():
            return None
        of_row = of_word[names.indices.to_numpy(zero_copy_only=False)]
        declared = _declared(batch, of_row >= 0)
        broken: dict[int, tuple[Schema, Failure]] = {}
        unknown = np.zeros(batch.num_rows, np.bool_)
        for number in np.unique(of_row[of_row >= 0]).tolist():
            rows = np.flatnonzero(of_row == number).astype(np.int32)
            self._judge_event(self._events[number], batch.column("properties"), rows, declared, broken, unknown)
        return Verdict(broken, unknown) if broken or unknown.any() else None

    def _judge_event(
        self,
        event: str,
        properties: pa.StringArray,
        rows: Int32s,
        declared: pa.DictionaryArray | None,
        broken: dict[int, tuple[Schema, Failure]],
        unknown: Bools,
    ) -> None:
        versions = self.schemas.by_event[event]
        newest = list(versions)[-1]
        groups: dict[str, Any] = {newest: rows}
        if declared is not None:
            codes = declared.indices.fill_null(-1).to_numpy(zero_copy_only=False)[rows]
            words = [*declared.dictionary.to_pylist(), newest]
            groups = {}
            for code in np.unique(codes).tolist():
                version = words[code]
                groups[version] = np.concatenate([groups.get(version, rows[:0]), rows[codes == code]])
        for version, mine in groups.items():
            schema = versions.get(version)
            if schema is None:
                unknown[mine] = True
                continue
            failures = self._checkers[event, version].failures(properties, np.ascontiguousarray(mine))
            broken.update({int(mine[at]): (schema, failure) for at, failure in failures.items()})


def _declared(batch: pa.RecordBatch, concerned: Bools) -> pa.DictionaryArray | None:
    """The version that each row declares, or null; ``context`` counts before ``properties``. ``None``: no row does."""
    found = None
    for name in ("properties", "context"):
        column = batch.column(name)
        # Nearly no event names a version, and to look for the word costs next to nothing.
        mentions = pc.match_substring(column, f'"{DECLARED}"').to_numpy(zero_copy_only=False) & concerned
        rows = np.flatnonzero(mentions).astype(np.int32)
        if len(rows):
            of_rows, values = _members(column, rows)
            numbers = np.full(batch.num_rows, -1, np.int64)
            numbers[of_rows] = np.arange(len(of_rows))
            taken = values.take(pa.array(numbers, mask=numbers < 0))
            found = taken if found is None else pc.coalesce(taken, found)
    return None if found is None or found.null_count == len(found) else found.dictionary_encode()


def _members(column: pa.StringArray, rows: Int32s) -> tuple[Int32s, pa.StringArray]:
    """The rows among ``rows`` with a version, and the versions."""
    place = strings(column)
    program = _MEMBER
    passes, room = np.empty(len(rows), np.uint8), np.empty((4, len(rows)), np.int32)
    count = native.check(
        program.nodes, program.keys, program.values, program.text, place.offsets, place.data, rows, passes, room
    )
    found = room[:, :count]
    odd = [(row, _member(column[row].as_py())) for row in rows[passes == 0].tolist()]
    named = [(row, value) for row, value in odd if value is not None]
    values = pa.concat_arrays(
        [gather(place.data, found[2], found[3]), pa.array([value for _, value in named], pa.string())]
    )
    return np.concatenate([rows[found[0]], np.array([row for row, _ in named], np.int32)]), values


def _member(text: str) -> str | None:
    """The version of an object that spells it in a rare way."""
    try:
        value = orjson.loads(text).get(DECLARED)
    except (orjson.JSONDecodeError, AttributeError):
        return None
    return None if isinstance(value, bool) or not isinstance(value, (str, int, float)) else str(value)
