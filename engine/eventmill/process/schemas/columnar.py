"""A schema's verdicts on a column of JSON text.

The kernel passes what is valid for certain; the strings that a pattern or a rarer format judges are judged once a distinct
value; every row left over is judged by a JSON Schema library, which also says what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import jsonschema_rs
import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from eventmill._native import schema as native
from eventmill.core.errors import SchemaError
from eventmill.kernels.arrow import strings
from eventmill.process.schemas.compile import DIALECTS, DRAFT_7, compile_schema, dialect

_DEFERRED_ROWS: Final = 4
_SEEN_MAX: Final = 100_000
_UUID: Final = jsonschema_rs.Draft202012Validator({"format": "uuid"}, validate_formats=True)

Int32s = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a value is invalid: ``path`` (JSON Pointer) breaks ``rule``, a keyword of the schema."""

    path: str
    rule: str

    def __str__(self) -> str:
        return f"{self.path or '/'}: {self.rule}"


class Checker:
    """One schema. Not thread-safe."""

    def __init__(self, schema: Any, resources: Mapping[str, Any] | None = None) -> None:
        """Raises ``SchemaError`` when it is no JSON Schema, of another dialect, or refers to what is not there."""
        self._resources = dict(resources or {})
        self._validator = _validator(schema, self._resources)
        self._program = compile_schema(schema, self._resources)
        self._texts = {node: _validator(rules, {}) for node, rules in self._program.deferred.items()}
        self._seen: dict[int, dict[str, bool]] = {node: {} for node in self._texts}
        #: Rows that the library judged, valid or not: what a schema costs beyond the kernel.
        self.judged = 0

    def failures(self, column: pa.StringArray, rows: Int32s | None = None) -> dict[int, Failure]:
        """The invalid ones of the column's ``rows`` (all, if none are given), by their place there."""
        place = strings(column)
        count = len(column) if rows is None else len(rows)
        passes = np.zeros(count, np.uint8)
        room = np.empty((4, max(len(self._texts) * count * _DEFERRED_ROWS, 1)), np.int32)
        program = self._program
        found = native.check(
            program.nodes, program.keys, program.values, program.text, place.offsets, place.data, rows, passes, room
        )
        if found:
            self._judge_texts(place.data, room[:, :found], passes)
        failures = {}
        for at in np.flatnonzero(passes == 0).tolist():
            row = at if rows is None else rows[at]
            failure = self.failure(place.data[place.offsets[row] : place.offsets[row + 1]].tobytes())
            if failure is not None:
                failures[at] = failure
        return failures

    def _judge_texts(self, data: npt.NDArray[np.uint8], found: Int32s, passes: npt.NDArray[np.uint8]) -> None:
        for node, validator in self._texts.items():
            mine = found[:, found[1] == node]
            if mine.shape[1] == 0:
                continue
            words = gather(data, mine[2], mine[3]).dictionary_encode()
            seen = self._seen[node]
            if len(seen) > _SEEN_MAX:
                seen.clear()
            good = np.empty(len(words.dictionary), np.bool_)
            for number, word in enumerate(words.dictionary.to_pylist()):
                verdict = seen.get(word)
                if verdict is None:
                    verdict = seen[word] = bool(validator.is_valid(word))
                good[number] = verdict
            passes[mine[0][~good[words.indices.to_numpy()]]] = 0

    def failure(self, text: bytes) -> Failure | None:
        """The library's verdict on one value: its first failure by path and rule, or none."""
        self.judged += 1
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError:
            return Failure("", "json")
        if self._validator.is_valid(value):
            return None
        errors = (
            (_pointer(error.instance_path), str(error.schema_path[-1])) for error in self._validator.iter_errors(value)
        )
        return Failure(*min(errors, key=lambda error: (error[0].count("/"), error)))


def gather(data: npt.NDArray[np.uint8], begins: Int32s, ends: Int32s) -> pa.StringArray:
    """The texts data[begin:end] as a column."""
    lengths = (ends - begins).astype(np.int64)
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    index = np.repeat(begins - offsets[:-1], lengths) + np.arange(offsets[-1], dtype=np.int32)
    content = np.ascontiguousarray(data[index])
    return pa.StringArray.from_buffers(len(lengths), pa.py_buffer(offsets), pa.py_buffer(content))


def _pointer(path: list[str | int]) -> str:
    return "".join("/" + str(segment).replace("~", "~0").replace("/", "~1") for segment in path)


def _refuse(uri: str) -> NoReturn:
    raise ValueError(f"{uri} is not among the schemas")


def _validator(schema: Any, resources: Mapping[str, Any]) -> Any:
    used = dialect(schema)
    if used not in DIALECTS:
        raise SchemaError(f"the dialect {used!r} is not supported; write $schema as one of {', '.join(DIALECTS)}")
    given = schema if isinstance(schema, bool) or "$schema" in schema else {"$schema": used, **schema}
    # Draft 7 does not know the format uuid; here it is checked as later drafts do.
    formats = {"uuid": _UUID.is_valid} if used == DRAFT_7 else None
    try:
        registry = jsonschema_rs.Registry(list(resources.items()), retriever=_refuse) if resources else None
        return jsonschema_rs.validator_for(
            given, validate_formats=True, formats=formats, retriever=_refuse, registry=registry
        )
    except (ValueError, TypeError) as error:
        message = getattr(error, "message", None) or str(error)
        raise SchemaError(f"this is no valid JSON Schema: {message}") from error
