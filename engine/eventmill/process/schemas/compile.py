"""From a JSON Schema to the structures of ``csrc/schema.h``.

What they cannot express (combinations, conditions, ``uniqueItems``, a format other than four, …) becomes a node at which no
value passes, so that a library judges every row that has a value there. A keyword unknown here is such a case too.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urldefrag, urljoin

import numpy as np
import numpy.typing as npt
import orjson

DRAFT_2020: Final = "https://json-schema.org/draft/2020-12/schema"
DRAFT_7: Final = "http://json-schema.org/draft-07/schema"
DIALECTS: Final = (DRAFT_2020, DRAFT_7)

ANY: Final = -1
_NONE: Final = -2
_KEYS_MAX: Final = 64
_EXACT_MAX: Final = 2**53
_UINT32_MAX: Final = 2**32 - 1
_TYPES: Final = {
    "null": 1, "boolean": 2, "object": 4, "array": 8, "string": 16, "number": 32, "integer": 64,
}  # fmt: skip
_ALL_TYPES: Final = sum(_TYPES.values())
_LIBRARY, _NUMBER, _EXCLUSIVE_MINIMUM, _EXCLUSIVE_MAXIMUM, _MULTIPLE, _LENGTH, _ENUM, _DEFER = (
    1 << bit for bit in range(8)
)
_REPORT: Final = 4096
_FORMATS: Final = {"date-time": 256, "uuid": 512, "email": 1024, "uri": 2048}
_ANNOTATIONS: Final = frozenset(
    ["$schema", "$id", "$comment", "$defs", "definitions", "title", "description", "default", "examples", "deprecated",
     "readOnly", "writeOnly"]
)  # fmt: skip
_EXPRESSED: Final = frozenset(
    ["type", "properties", "required", "additionalProperties", "items", "enum", "const", "minimum", "maximum",
     "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "pattern", "format", "minItems",
     "maxItems"]
)  # fmt: skip

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Program:
    """A schema for the kernel; ``deferred`` has, by node, the schema of strings that the kernel leaves to its caller."""

    nodes: Bytes
    keys: Bytes
    values: Bytes
    text: Bytes
    deferred: Mapping[int, Mapping[str, Any]]


@dataclass(slots=True)
class _Node:
    types: int = _ALL_TYPES
    rules: int = 0
    minimum: float = float("-inf")
    maximum: float = float("inf")
    multiple: float = 1.0
    length: tuple[int, int] = (0, _UINT32_MAX)
    items_count: tuple[int, int] = (0, _UINT32_MAX)
    keys: list[tuple[str, int]] = field(default_factory=list)
    required: int = 0
    values: list[Any] = field(default_factory=list)
    items: int = ANY
    additional: int = ANY


class _Inexpressible(Exception):
    """The library must judge."""


def dialect(schema: Any, default: str = DRAFT_2020) -> str:
    """The meta-schema's URI, without an empty fragment."""
    given = schema.get("$schema", default) if isinstance(schema, dict) else default
    return given.removesuffix("#") if isinstance(given, str) else default


def compile_schema(schema: Any, resources: Mapping[str, Any]) -> Program:
    """The program of a valid schema; ``resources`` are the documents that it may refer to, by URI."""
    compiler = _Compiler(schema, resources)
    compiler.root()
    return compiler.program()


def member_program(name: str) -> Program:
    """Defers the member ``name`` of objects where it is a string or a number; objects without it pass too."""
    compiler = _Compiler({}, {})
    scalar = _Node(types=_TYPES["string"] | _TYPES["number"], rules=_REPORT)
    compiler.add(_Node(types=_TYPES["object"], keys=[(name, 1)]), scalar)
    return compiler.program()


class _Compiler:
    def __init__(self, schema: Any, resources: Mapping[str, Any]) -> None:
        self._schema = schema
        self._documents = {"": schema, **resources}
        self._nodes: list[_Node] = []
        self._known: dict[tuple[str, str], int] = {}
        self._deferred: dict[int, dict[str, Any]] = {}

    def root(self) -> None:
        """Node 0 is the whole schema."""
        document = self._documents[""]
        if dialect(document) not in DIALECTS or any(map(_rebased, self._documents.values())):
            self._nodes.append(_Node(rules=_LIBRARY))
        elif isinstance(document, bool):
            self._nodes.append(_Node(rules=0 if document else _LIBRARY))
        else:
            self._node("", "", document)

    def add(self, *nodes: _Node) -> None:
        """Nodes made elsewhere."""
        self._nodes.extend(nodes)

    def _place(self, uri: str, pointer: str, schema: Any) -> int:
        """A subschema's node, ``ANY`` for true, or ``_NONE`` for false."""
        if isinstance(schema, bool):
            return ANY if schema else _NONE
        return self._known.get((uri, pointer)) or self._node(uri, pointer, schema)

    def _node(self, uri: str, pointer: str, schema: Any) -> int:
        number = len(self._nodes)
        # Known before it is filled: a schema may refer to itself.
        self._known[uri, pointer] = number
        self._nodes.append(_Node())
        try:
            self._nodes[number] = self._filled(number, uri, pointer, schema)
        except _Inexpressible:
            self._nodes[number] = _Node(rules=_LIBRARY)
            self._deferred.pop(number, None)
        return number

    def _filled(self, number: int, uri: str, pointer: str, schema: Any) -> _Node:
        if not isinstance(schema, dict):
            raise _Inexpressible
        if "$ref" in schema:
            return self._referred(uri, schema)
        if set(schema) - _EXPRESSED - _ANNOTATIONS:
            raise _Inexpressible
        node = _Node()
        given = schema.get("type")
        if given is not None:
            names = [given] if isinstance(given, str) else given
            node.types = sum({_TYPES[name] for name in names})
        _numbers(node, schema)
        self._strings(node, number, uri, schema)
        _enumerated(node, schema)
        node.items_count = _bounds(schema, "minItems", "maxItems")
        items = schema.get("items", True)
        node.items = self._place(uri, f"{pointer}/items", items)
        if node.items == _NONE:
            raise _Inexpressible
        self._members(node, uri, pointer, schema)
        return node

    def _referred(self, uri: str, schema: dict[str, Any]) -> _Node:
        """The node that is meant, under a number of its own."""
        if dialect(self._documents[uri]) == DRAFT_2020 and set(schema) - _ANNOTATIONS - {"$ref"}:
            raise _Inexpressible
        document = self._documents[uri]
        base = document.get("$id", uri) if isinstance(document, dict) else uri
        target, pointer = urldefrag(urljoin(base, schema["$ref"]))
        if target == base or not target:
            target = uri
        found = self._documents.get(target)
        if found is None or dialect(found) != dialect(document) or (pointer and not pointer.startswith("/")):
            raise _Inexpressible
        for segment in pointer.split("/")[1:]:
            if not isinstance(found, dict) or segment not in found:
                raise _Inexpressible
            found = found[segment]
        place = self._place(target, pointer, found)
        if place < 0 or (place == 0 and not self._nodes[0].keys):
            # The root is not filled yet while it is being compiled; a copy of it would say nothing.
            raise _Inexpressible
        meant = self._nodes[place]
        if self._deferred.get(place):
            raise _Inexpressible
        return meant

    def _strings(self, node: _Node, number: int, uri: str, schema: dict[str, Any]) -> None:
        if "minLength" in schema or "maxLength" in schema:
            node.length = _bounds(schema, "minLength", "maxLength")
            node.rules |= _LENGTH
        left = {}
        if "pattern" in schema:
            left["pattern"] = schema["pattern"]
        if "format" in schema:
            bit = _FORMATS.get(schema["format"])
            if bit is None:
                left["format"] = schema["format"]
            else:
                node.rules |= bit
        if left:
            node.rules |= _DEFER
            self._deferred[number] = {"$schema": dialect(self._documents[uri]), **left}

    def _members(self, node: _Node, uri: str, pointer: str, schema: dict[str, Any]) -> None:
        node.additional = self._place(uri, f"{pointer}/additionalProperties", schema.get("additionalProperties", True))
        properties, required = schema.get("properties", {}), schema.get("required", [])
        names = list(dict.fromkeys([*properties, *required]))
        if len(names) > _KEYS_MAX:
            raise _Inexpressible
        for bit, name in enumerate(names):
            escaped = name.replace("~", "~0").replace("/", "~1")
            place = (
                self._place(uri, f"{pointer}/properties/{escaped}", properties[name])
                if name in properties
                else node.additional
            )
            node.keys.append((name, place))
            node.required |= (name in required) << bit

    def program(self) -> Program:
        """Everything as bytes."""
        text = bytearray(b"\0")
        nodes, keys, values = bytearray(), bytearray(), bytearray()

        def written(string: str) -> tuple[int, int]:
            encoded = string.encode("utf-8", "surrogatepass")
            text.extend(encoded)
            return len(text) - len(encoded), len(encoded)

        for node in self._nodes:
            nodes += struct.pack(
                "=3dQ10I2i", node.minimum, node.maximum, node.multiple, node.required, node.types, node.rules,
                *node.length, *node.items_count, len(keys) // 16, len(node.keys), len(values) // 24, len(node.values),
                node.items, node.additional,
            )  # fmt: skip
            for name, place in node.keys:
                keys += struct.pack("=IIiI", *written(name), place, 0)
            for value in node.values:
                begin, length = written(value) if isinstance(value, str) else (0, 0)
                number = 0.0 if isinstance(value, str) or value is None else float(value)
                values += struct.pack("=dIIII", number, _value_type(value), begin, length, 0)
        built = [np.frombuffer(bytes(part), np.uint8) for part in (nodes, keys, values, text)]
        return Program(built[0], built[1], built[2], built[3], self._deferred)


def _value_type(value: Any) -> int:
    if value is None:
        return _TYPES["null"]
    if isinstance(value, bool):
        return _TYPES["boolean"]
    return _TYPES["string"] if isinstance(value, str) else _TYPES["number"]


def _numbers(node: _Node, schema: dict[str, Any]) -> None:
    least, above = _number(schema, "minimum"), _number(schema, "exclusiveMinimum")
    most, below = _number(schema, "maximum"), _number(schema, "exclusiveMaximum")
    if (least is not None and above is not None) or (most is not None and below is not None):
        raise _Inexpressible
    if least is not None or above is not None:
        node.minimum = least if least is not None else above or 0.0
        node.rules |= _NUMBER | (_EXCLUSIVE_MINIMUM if above is not None else 0)
    if most is not None or below is not None:
        node.maximum = most if most is not None else below or 0.0
        node.rules |= _NUMBER | (_EXCLUSIVE_MAXIMUM if below is not None else 0)
    multiple = schema.get("multipleOf")
    if multiple is not None:
        if not isinstance(multiple, int) or isinstance(multiple, bool) or not 0 < multiple < 2**31:
            raise _Inexpressible
        node.multiple = float(multiple)
        node.rules |= _MULTIPLE


def _number(schema: dict[str, Any], name: str) -> float | None:
    value = schema.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > _EXACT_MAX:
        raise _Inexpressible
    return float(value)


def _bounds(schema: dict[str, Any], least: str, most: str) -> tuple[int, int]:
    bounds = schema.get(least, 0), schema.get(most, _UINT32_MAX)
    if any(not isinstance(bound, int) or not 0 <= bound <= _UINT32_MAX for bound in bounds):
        raise _Inexpressible
    return bounds


def _enumerated(node: _Node, schema: dict[str, Any]) -> None:
    if "enum" not in schema and "const" not in schema:
        return
    if "enum" in schema and "const" in schema:
        raise _Inexpressible
    values = schema["enum"] if "enum" in schema else [schema["const"]]
    for value in values:
        exact = not isinstance(value, (int, float)) or abs(value) <= _EXACT_MAX
        if isinstance(value, (dict, list)) or not exact:
            raise _Inexpressible
    node.values = list(values)
    node.rules |= _ENUM


def _rebased(document: Any) -> bool:
    """Whether references inside it may be relative to something else than its root."""

    def search(value: Any) -> bool:
        if isinstance(value, dict):
            return isinstance(value.get("$id"), str) or any(map(search, value.values()))
        return isinstance(value, list) and any(map(search, value))

    return isinstance(document, dict) and any(map(search, document.values()))


def canonical(value: Any) -> bytes:
    """JSON with sorted keys: equal documents have equal bytes."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
