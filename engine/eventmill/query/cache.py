"""Answers kept by content: what was asked, and the versions of exactly those partitions that it was asked of.

A key holds everything that an answer depends on, so an entry is never wrong and never has to be thrown away: when a
partition changes, its version does, and questions that read it have other keys from then on. A question about days that are
over stays answered while today's events flow; a late event for one of those days makes it be asked anew.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final, Protocol

import orjson
import pyarrow as pa

#: What an entry takes beside its table.
_ENTRY_BYTES: Final = 1_024
#: One answer may have this part of the whole cache.
_SHARE: Final = 8

Key = tuple[str | None, bytes]


def key_of(project: str | None, *parts: object) -> Key:
    """The key of what all ``parts`` (with the same ``repr`` if and only if they mean the same) say of a question.

    The project stands in it by itself, so that no digest of anybody's question can ever be another project's.
    """
    return project, hashlib.blake2b(
        "\n".join(map(repr, parts)).encode("utf-8", "surrogatepass"), digest_size=32
    ).digest()


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer's table and what is told of it."""

    table: pa.Table
    meta: dict[str, Any]

    @property
    def size_bytes(self) -> int:
        """About what it takes in memory."""
        return int(self.table.nbytes) + len(orjson.dumps(self.meta)) + _ENTRY_BYTES


class Told(Protocol):
    """Who is told what the cache does."""

    def asked(self, hit: bool) -> None:
        """A question was looked up."""
        ...

    def holds(self, size_bytes: int, evicted: int) -> None:
        """So many bytes are held now, and so many entries had to go for that."""
        ...


class Untold:
    """Nobody is."""

    def asked(self, hit: bool) -> None:
        """See ``Told``."""

    def holds(self, size_bytes: int, evicted: int) -> None:
        """See ``Told``."""


class AnswerCache:
    """At most ``bytes_max`` of answers; what was asked for longest ago goes first. Safe to share between threads."""

    def __init__(self, bytes_max: int, told: Told | None = None) -> None:
        self._bytes_max = bytes_max
        self._told = told or Untold()
        self._lock = threading.Lock()
        self._entries: OrderedDict[Key, Kept] = OrderedDict()
        self._bytes = 0

    @property
    def size_bytes(self) -> int:
        """What all entries take."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, key: Key) -> Kept | None:
        """The answer, if it is kept."""
        with self._lock:
            found = self._entries.get(key)
            if found is not None:
                self._entries.move_to_end(key)
        self._told.asked(found is not None)
        return found

    def keep(self, key: Key, answer: Kept) -> None:
        """Keep it, unless it alone would take too large a part of the room."""
        if answer.size_bytes > self._bytes_max // _SHARE:
            return
        with self._lock:
            before = self._entries.pop(key, None)
            self._bytes += answer.size_bytes - (before.size_bytes if before is not None else 0)
            self._entries[key] = answer
            evicted = 0
            while self._bytes > self._bytes_max:
                _, gone = self._entries.popitem(last=False)
                self._bytes -= gone.size_bytes
                evicted += 1
            held = self._bytes
        self._told.holds(held, evicted)
