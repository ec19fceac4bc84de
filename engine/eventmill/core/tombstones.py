"""What was forgotten, and must not come back: a list on the log that whoever stores events applies.

A tombstone names no user: it holds a digest. It covers what had happened or had been received when it was made, so that neither
a replay nor a phone that was offline brings an event back; what the same user does later is kept.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from eventmill.core import frame
from eventmill.core.log import Frame, Log
from eventmill.core.schema import TIME, TOMBSTONES, Topic

#: What a digest is made of besides the id; ``sinks.realtime.forget`` computes the same in SQL.
SALT: Final = "eventmill.forget:"
#: The columns that a tombstone looks at.
COLUMNS: Final = ("user_id", "event", "timestamp", "received_at")
_READ_EVENTS: Final = 1_000

Mask = npt.NDArray[np.bool_]
Rows: TypeAlias = pa.Table | pa.RecordBatch


def digest(user_id: str) -> str:
    """What stands for a user in a tombstone: SHA-256, 64 hex digits."""
    return hashlib.sha256(f"{SALT}{user_id}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Tombstone:
    """Events that fulfil all that is given: ``user`` (a digest), ``event`` (or one of ``older``, names that it had before),
    ``from_ms <= timestamp < to_ms``; and whose ``timestamp`` or ``received_at`` lies before ``before_ms``. All times in ms
    since the epoch."""

    id: str
    before_ms: int
    user: str | None = None
    event: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None
    older: Sequence[str] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "older", tuple(self.older))  # JSON gives lists

    @property
    def names(self) -> list[str]:
        """The only event names that it covers; none: all."""
        return [] if self.event is None else [self.event, *self.older]

    def mask(self, rows: Rows) -> Mask:
        """Which rows (with at least ``COLUMNS``) are covered."""
        happened, received = _ms(rows, "timestamp"), _ms(rows, "received_at")
        found: Mask = (happened < self.before_ms) | (received < self.before_ms)
        if self.from_ms is not None:
            found &= happened >= self.from_ms
        if self.to_ms is not None:
            found &= happened < self.to_ms
        if self.names and found.any():
            names = rows.column("event")
            names = names.cast(pa.string()) if not pa.types.is_string(names.type) else names
            found &= np.asarray(pc.is_in(names, value_set=pa.array(self.names)))
        if self.user is not None and found.any():
            at = np.flatnonzero(found)
            found[at] = _of_users(rows.column("user_id").take(pa.array(at)), {self.user})
        return found

    def covers_letter(self, user: Any, event: Any, received_ms: int) -> bool:
        """Whether a dead letter is covered; it has no time but that of its receipt."""
        return (
            received_ms < self.before_ms
            and (self.user is None or (isinstance(user, str) and digest(user) == self.user))
            and (not self.names or event in self.names)
            and (self.from_ms is None or received_ms >= self.from_ms)
            and (self.to_ms is None or received_ms < self.to_ms)
        )

    def as_dict(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self)


def _ms(rows: Rows, name: str) -> npt.NDArray[np.int64]:
    times: npt.NDArray[np.int64] = rows.column(name).cast(TIME).cast(pa.int64()).to_numpy(zero_copy_only=False)
    return times


def client_event(payload: bytes) -> dict[str, Any]:
    """What a client has sent; empty where that is no JSON object."""
    try:
        client = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return {}
    return client if isinstance(client, dict) else {}


def _of_users(users: pa.Array | pa.ChunkedArray, digests: set[str]) -> Mask:
    known = [user for user in pc.unique(users).to_pylist() if user is not None and digest(user) in digests]
    return np.asarray(pc.is_in(users, value_set=pa.array(known, pa.string())))


class Tombstones:
    """All of them. Safe to share between threads."""

    def __init__(self, found: Iterable[Tombstone] = ()) -> None:
        self._lock = threading.Lock()
        self._users: dict[str, int] = {}
        self._others: list[Tombstone] = []
        self._newest = 0
        for each in found:
            self.add(each)

    def add(self, tombstone: Tombstone) -> None:
        """From now on it is applied."""
        with self._lock:
            self._newest = max(self._newest, tombstone.before_ms)
            if tombstone.user is not None and (tombstone.event, tombstone.from_ms, tombstone.to_ms) == (None,) * 3:
                self._users[tombstone.user] = max(tombstone.before_ms, self._users.get(tombstone.user, 0))
            else:
                self._others = [*self._others, tombstone]

    def mask(self, rows: Rows) -> Mask | None:
        """Which rows are forgotten; null when none is, which costs next to nothing where all of them are new."""
        with self._lock:
            newest, users, others = self._newest, dict(self._users), self._others
        if not newest or rows.num_rows == 0:
            return None
        happened, received = _ms(rows, "timestamp"), _ms(rows, "received_at")
        at = np.flatnonzero((happened < newest) | (received < newest))
        if not len(at):
            return None
        few = rows.select(list(COLUMNS)).take(pa.array(at))
        found = np.zeros(len(at), np.bool_)
        for each in others:
            found |= each.mask(few)
        if users:
            earliest = np.minimum(happened[at], received[at])
            of_users = few.column("user_id")
            values = pc.unique(of_users)
            before = [0 if user is None else users.get(digest(user), 0) for user in values.to_pylist()]
            places = pc.index_in(of_users, value_set=values).to_numpy(zero_copy_only=False)
            found |= earliest < np.array(before, np.int64)[places]
        if not found.any():
            return None
        mask = np.zeros(rows.num_rows, np.bool_)
        mask[at] = found
        return mask

    def mask_of_letters(self, letters: pa.RecordBatch) -> Mask:
        """Which dead letters (DEAD) are forgotten: whose they are says their payload."""
        with self._lock:
            newest, users, others = self._newest, dict(self._users), self._others
        received = _ms(letters, "received_at")
        mask = np.zeros(letters.num_rows, np.bool_)
        at = np.flatnonzero(received < newest)
        few = letters.select(["payload", "event"]).take(pa.array(at)).to_pylist()
        for row, letter, ms in zip(at.tolist(), few, received[at].tolist(), strict=True):
            client = client_event(letter["payload"])
            user, event = client.get("userId"), letter["event"] or client.get("event")
            mask[row] = (isinstance(user, str) and ms < users.get(digest(user), 0)) or any(
                each.covers_letter(user, event, ms) for each in others
            )
        return mask


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the log says: all tombstones, by their ids what had been counted before the deletion began, and in their order what
    the real-time store has retired (conditions, which are its own)."""

    tombstones: list[Tombstone]
    counted: dict[str, dict[str, Any]]
    retired: list[dict[str, Any]] = field(default_factory=list)


def recorded(log: Log) -> Recorded:
    """Read the list."""
    found = Recorded([], {})
    position, end = log.start_offset(Topic.TOMBSTONES, 0), log.end_offset(Topic.TOMBSTONES, 0)
    while position < end:
        frames = log.read(Topic.TOMBSTONES, 0, position, events_max=_READ_EVENTS, to_offset=end)
        if not frames:
            break
        for row in frame.decode_all(frames, TOMBSTONES).to_pylist():
            content = orjson.loads(row["content"])
            if row["kind"] == "counted":
                found.counted[row["id"]] = content
            elif row["kind"] == "tombstone":
                found.tombstones.append(Tombstone(**content))
            else:
                found.retired.append(content)
        position = frames[-1].offset + 1
    return found


def record(tombstone: Tombstone, counted: dict[str, Any] | None = None) -> Frame:
    """The tombstone, or what was counted for it, as a frame for the log."""
    kind, content = ("tombstone", tombstone.as_dict()) if counted is None else ("counted", counted)
    row = {"id": tombstone.id, "kind": kind, "content": orjson.dumps(content)}
    return frame.encode(Topic.TOMBSTONES, pa.RecordBatch.from_pylist([row], TOMBSTONES))


def record_retired(identity: str, condition: Mapping[str, Any]) -> Frame:
    """What the real-time store retires, and has counted, as a frame for the log."""
    row = {"id": identity, "kind": "retired", "content": orjson.dumps(condition)}
    return frame.encode(Topic.TOMBSTONES, pa.RecordBatch.from_pylist([row], TOMBSTONES))
