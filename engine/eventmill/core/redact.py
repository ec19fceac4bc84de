"""Personal data that is not kept where people look for faults: in dead letters, and in log lines.

A letter's bytes stay as the client sent them but for the values of the members that ``dead.redact`` names: those become
``"[redacted]"``, whatever they were. Log lines lose whatever looks like an e-mail address, and the user and password of a URL.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from json import JSONDecodeError, JSONDecoder
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any, Final

import pyarrow as pa

from eventmill.core.errors import ConfigError

REDACTED: Final = "[redacted]"
_VALUE: Final = b'"[redacted]"'
_ANY: Final = "*"
#: A letter is told from others, traced, exported, forgotten and put back by these.
_KEPT: Final = ("messageId", "type", "event", "userId", "anonymousId", "timestamp", "originalTimestamp", "sentAt")
#: What may stand between two quotes.
_TEXT: Final = r'(?:[^"\\]|\\.)*'
_BLANK: Final = re.compile(r"[ \t\n\r]*")
_EMAIL: Final = re.compile(r"[\w.+%-]+@(?:[\w-]+\.)+[A-Za-z]{2,}")
_CREDENTIALS: Final = re.compile(r"(?<=://)[^/\s@]+@")

#: Members by name, and below each what is redacted there; an empty one is redacted whole.
_Tree = dict[str, Any]


class Redaction:
    """``paths`` are dotted, in the client's spelling (``properties.email``, ``context.ip``); ``*`` stands for any member.

    Elements of lists are looked into. Raises ``ConfigError`` for a path that is none, or that a letter cannot do without.
    """

    def __init__(self, paths: Sequence[str] = ()) -> None:
        self._tree: _Tree = {}
        names = set()
        for path in paths:
            *above, last = path.split(".")
            if not all((*above, last)) or (not above and last in (*_KEPT, _ANY)):
                raise ConfigError(
                    f"dead.redact: {path!r} cannot be redacted; name members such as properties.email or context.ip, "
                    f"and none of {', '.join(_KEPT)}"
                )
            node = self._tree
            for name in above:
                node = node.setdefault(name, {})
            node[last] = {}
            # Whatever is redacted stands below the last member that is named; where none is, that is any.
            names.add(next((name for name in reversed((*above, last)) if name != _ANY), _ANY))
        spelt = _TEXT if _ANY in names else "|".join(sorted(re.escape(name) for name in names))
        # For bytes that are no JSON: a member of that name, and its value up to where it ends or the bytes do.
        self._rough = re.compile(rf'("(?:{spelt})"\s*:\s*)("(?:[^"\\]|\\.)*"?|[^\s"].*)'.encode(), re.DOTALL)
        self._mentions = re.compile(rf'"(?:{spelt})"|\\'.encode())

    def __bool__(self) -> bool:
        return bool(self._tree)

    def payload(self, payload: bytes) -> bytes:
        """The client's bytes without what is redacted; the same bytes where there is nothing of it."""
        if not self._tree or not self._mentions.search(payload):
            return payload
        text = payload.decode("utf-8", "surrogateescape")
        try:
            begin = _past_blank(text, 0)
            _, end = _decoder.raw_decode(text, begin)
            if _past_blank(text, end) != len(text):
                raise JSONDecodeError("there is more behind the value", text, end)
            spans = list(_spans(text, begin, self._tree))
        except (JSONDecodeError, RecursionError):
            return self._rough.sub(rb"\1" + _VALUE, payload)
        parts, at = [], 0
        for begin, end in spans:
            parts += [text[at:begin], f'"{REDACTED}"']
            at = end
        return "".join([*parts, text[at:]]).encode("utf-8", "surrogateescape")

    def letters(self, letters: pa.RecordBatch) -> pa.RecordBatch:
        """Dead letters (DEAD) whose payloads are redacted, and who say so by ``redacted``."""
        if not self._tree:
            return letters
        before = letters.column("payload").to_pylist()
        after = [self.payload(payload) for payload in before]
        changed = [new != old for new, old in zip(after, before, strict=True)]
        told = [changed[row] or bool(was) for row, was in enumerate(letters.column("redacted").to_pylist())]
        for name, values in (("payload", after), ("redacted", told)):
            place = letters.schema.get_field_index(name)
            field = letters.schema.field(place)
            letters = letters.set_column(place, field, pa.array(values, field.type))
        return letters


#: Nothing is redacted.
NOTHING: Final = Redaction()

_decoder: Final = JSONDecoder(parse_int=str, parse_float=str)


def _spans(text: str, at: int, tree: _Tree) -> Iterator[tuple[int, int]]:
    """Where the redacted values of the JSON value at ``at`` begin and end, in order; that it is JSON is known."""
    if text[at] == "[":
        for begin, _ in _elements(text, at):
            yield from _spans(text, begin, tree)
    elif text[at] == "{":
        for name, begin, end in _members(text, at):
            below = [each for each in (tree.get(name), tree.get(_ANY)) if each is not None]
            if any(not each for each in below):
                yield begin, end
            elif below:
                yield from _spans(text, begin, _joined(below))


def _joined(trees: Sequence[_Tree]) -> _Tree:
    """What any of them redacts."""
    if len(trees) == 1:
        return trees[0]
    joined: _Tree = {}
    for name in {name for tree in trees for name in tree}:
        below = [tree[name] for tree in trees if name in tree]
        joined[name] = {} if not all(below) else _joined(below)
    return joined


def _members(text: str, at: int) -> Iterator[tuple[str, int, int]]:
    """Name, begin and end of the value of each member of the object at ``at``."""
    at = _past_blank(text, at + 1)
    while text[at] != "}":
        name, at = scanstring(text, at + 1, True)
        begin = _past_blank(text, _past_blank(text, at) + 1)
        _, end = _decoder.raw_decode(text, begin)
        yield name, begin, end
        at = _past_comma(text, end)


def _elements(text: str, at: int) -> Iterator[tuple[int, int]]:
    at = _past_blank(text, at + 1)
    while text[at] != "]":
        _, end = _decoder.raw_decode(text, at)
        yield at, end
        at = _past_comma(text, end)


def _past_comma(text: str, at: int) -> int:
    at = _past_blank(text, at)
    return _past_blank(text, at + 1) if text[at] == "," else at


def _past_blank(text: str, at: int) -> int:
    found = _BLANK.match(text, at)
    return at if found is None else found.end()


def line(text: str) -> str:
    """A log line without e-mail addresses, and without what stands before the host in a URL."""
    if "@" not in text:
        return text
    return _EMAIL.sub("[e-mail]", _CREDENTIALS.sub("[redacted]@", text))


class LineFormatter(logging.Formatter):
    """Formats as ``logging.Formatter`` does, tracebacks included, and redacts the line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return line(super().format(record))
