"""Saved questions: a project's own, by name, on the log.

They stand on the log because every process that answers questions reads it, and because a log that survives keeps them too:
each change is a record, the newest of a name counts. Brokers drop older ones by the record's key; the embedded log does when
most of its records are of the past.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import orjson
import pyarrow as pa

from eventmill.core import frame
from eventmill.core.errors import QueryError, StateError
from eventmill.core.log import Frame, Log, StoredFrame
from eventmill.core.schema import SAVED, Topic

NAME_CHARS_MAX: Final = 100
BYTES_MAX: Final = 65_536
SAVED_MAX: Final = 1_000
_READ_EVENTS: Final = 1_000
#: Records of the past beyond those that count, before the log is tidied.
_PAST_MAX: Final = 500
#: A text in SQL; a quote in it is doubled, or stands behind a backslash.
_QUOTED: Final = re.compile(r"'((?:[^'\\]|\\.|'')*)'", re.DOTALL)


def checked_name(name: str) -> str:
    """A name that can stand in a path. Raises ``QueryError``."""
    if not 0 < len(name) <= NAME_CHARS_MAX or "/" in name or not name.isprintable() or name != name.strip():
        raise QueryError(
            f"a saved question's name has 1 to {NAME_CHARS_MAX} printable characters, none of them a slash"
        )
    return name


@dataclass(frozen=True, slots=True)
class Saved:
    """A question by name. ``query`` is the body of its ``kind``; ``saved_at`` in ms since the epoch."""

    name: str
    kind: str
    query: dict[str, Any]
    saved_at: int

    def texts(self) -> Iterator[str]:
        """All texts of its body, and those that are quoted in its SQL."""
        for _, text in texts_of(self.query):
            yield text
            for quoted in _QUOTED.findall(text):
                yield re.sub(r"\\(.)|'(')", lambda found: found[1] or found[2], quoted, flags=re.DOTALL)

    def content(self) -> bytes:
        """As it stands on the log."""
        return orjson.dumps({"kind": self.kind, "query": self.query, "saved_at": self.saved_at})


class SavedQuestions:
    """All projects' saved questions. Safe to share between threads; every method may raise ``LogUnavailable``."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._position = 0
        self._records = 0
        self._known: dict[tuple[str, str], Saved] = {}

    def all(self, project: str | None) -> list[Saved]:
        """A project's, by name; null: those that belong to no project."""
        with self._lock:
            self._read()
            return sorted(
                (each for (of, _), each in self._known.items() if of == (project or "")), key=lambda s: s.name
            )

    def everyones(self) -> list[tuple[str | None, Saved]]:
        """All projects' (null: of none), by project and name."""
        with self._lock:
            self._read()
            return [(project or None, each) for (project, _), each in sorted(self._known.items())]

    def find(self, project: str | None, name: str) -> Saved | None:
        """The newest of that name."""
        with self._lock:
            self._read()
            return self._known.get((project or "", name))

    def put(self, project: str | None, saved: Saved) -> bool:
        """Save it, durable on return; true when the name is new. Raises ``QueryError`` when there are too many."""
        with self._lock:
            self._read()
            key = project or "", saved.name
            is_new = key not in self._known
            if is_new and sum(of == key[0] for of, _ in self._known) >= SAVED_MAX:
                raise QueryError(f"{SAVED_MAX} questions are saved, which are the most; delete one first")
            self._append([_record(*key, saved.content())])
            self._read()
        return is_new

    def delete(self, project: str | None, name: str) -> bool:
        """Delete it; false when there is none."""
        with self._lock:
            self._read()
            key = project or "", name
            if key not in self._known:
                return False
            self._append([_record(*key, b"null")])
            self._read()
        return True

    def naming(self, is_named: Callable[[str], bool]) -> list[tuple[str | None, Saved]]:
        """All projects' that hold such a value."""
        return [(project, each) for project, each in self.everyones() if any(map(is_named, each.texts()))]

    def forget(self, is_named: Callable[[str], bool]) -> None:
        """Delete those, and what the log still has of them; brokers drop that by the records' keys."""
        named = self.naming(is_named)

        def change(stored: StoredFrame) -> Frame | None:
            rows = frame.decode_all([stored], SAVED).to_pylist()
            found = [_saved(row["name"], orjson.loads(row["content"])) for row in rows]
            if not any(is_named(text) for each in found if each is not None for text in each.texts()):
                return None
            return _record("", "", b"null")

        with self._lock:
            end = self._log.end_offset(Topic.SAVED, 0)
            self._append([_record(project or "", each.name, b"null") for project, each in named])
            self._log.rewrite(Topic.SAVED, 0, end, change)

    def _append(self, frames: list[Frame]) -> None:
        with self._log.transaction() as transaction:
            transaction.append(frames)
        if self._records > len(self._known) + _PAST_MAX:
            self._tidy()

    def _tidy(self) -> None:
        """Write what counts again and drop what stood before; a crash in between leaves some twice, which changes nothing."""
        self._read()
        begin = self._log.end_offset(Topic.SAVED, 0)
        live = [_record(*key, saved.content()) for key, saved in self._known.items()] or [_record("", "", b"null")]
        with self._log.transaction() as transaction:
            transaction.append(live)
        first = self._log.read(Topic.SAVED, 0, begin, events_max=1, to_offset=begin + 1)
        if first:
            self._log.trim(Topic.SAVED, 0, first[0].appended_at)
        self._records = 0
        self._read()

    def _read(self) -> None:
        """Fold what has come since; from the beginning where somebody else has tidied."""
        start, end = self._log.start_offset(Topic.SAVED, 0), self._log.end_offset(Topic.SAVED, 0)
        if self._position > end:
            raise StateError(
                "the topic of saved questions is shorter than it was: it was made anew; start this process again"
            )
        if self._position < start:
            self._position, self._known = start, {}
        while self._position < end:
            frames = self._log.read(Topic.SAVED, 0, self._position, events_max=_READ_EVENTS, to_offset=end)
            if not frames:
                break
            for row in frame.decode_all(frames, SAVED).to_pylist():
                self._records += 1
                self._fold(row["project"], row["name"], orjson.loads(row["content"]))
            self._position = frames[-1].offset + 1

    def _fold(self, project: str, name: str, content: dict[str, Any] | None) -> None:
        saved = _saved(name, content)
        if saved is None:
            self._known.pop((project, name), None)
        else:
            self._known[project, name] = saved


def _saved(name: str, content: dict[str, Any] | None) -> Saved | None:
    return None if content is None else Saved(name, content["kind"], content["query"], content["saved_at"])


def texts_of(value: Any, member: str = "") -> Iterator[tuple[str, str]]:
    """Every text of a body, behind the member that it stands under."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from texts_of(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from texts_of(inner, member)
    elif isinstance(value, str):
        yield member, value


def _record(project: str, name: str, content: bytes) -> Frame:
    row = {"project": project, "name": name, "content": content}
    return frame.encode(Topic.SAVED, pa.RecordBatch.from_pylist([row], SAVED), key=f"{project}/{name}")
