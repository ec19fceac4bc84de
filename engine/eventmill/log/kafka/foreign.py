"""Messages that others have written into raw: JSON, one event or a batch each, as the HTTP API takes them.

Each has its own offset, key and time, but they are decoded together: an Arrow batch costs as much as hundreds of events.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa

from eventmill._native.decode import Decoder
from eventmill.core.errors import BodyError
from eventmill.core.log import Rows, Shared, StoredFrame
from eventmill.core.schema import REJECT, Reason, Topic

#: What is decoded together at most, but for a message that is larger alone: what is made of it fits a frame, words and all.
_ROWS_MAX: Final = 16_384
_BYTES_MAX: Final = 8 << 20
_PARTITION_BITS: Final = 16
_SALT_MAX: Final = (1 << 64) - 1


class Place(NamedTuple):
    """Where a message is, when it came there (ms since the epoch), and its key."""

    topic: Topic
    partition: int
    offset: int
    appended_at: int
    key: bytes | None


class Foreign:
    """One thread at a time. What ``take`` gives may be looked into, by any thread, after the next ``seal``."""

    def __init__(self) -> None:
        self._decoder = Decoder()
        self._begin()

    def _begin(self) -> None:
        self._events, self._rejects = Shared(), Shared()
        self._messages = self._rows = self._reject_rows = 0
        #: Messages that are not JSON, and their bytes in all.
        self._broken: list[dict[str, object]] = []
        self._broken_bytes = 0
        #: The rejects in the order of their messages: the decoder's by number, those that are not JSON by ~number.
        self._order: list[int] = []

    def take(self, place: Place, headers: dict[str, str], value: bytes | None) -> StoredFrame:
        """A message as a frame. It was received when it was appended. What cannot be taken of it are its ``rejects``."""
        payload = value or b""
        nbytes = self._decoder.nbytes + self._broken_bytes + len(payload)
        if nbytes > _BYTES_MAX or self._rows + len(self._order) >= _ROWS_MAX:
            self.seal()
        if value is None:
            accepted, rejected = self._refused(place, payload, "a message without a value")
        else:
            accepted, rejected = self._decoded(place, payload)
        events = Rows(self._events, self._rows, accepted)
        rejects = Rows(self._rejects, len(self._order) - rejected, rejected) if rejected else None
        self._messages += 1
        self._rows += accepted
        topic, partition, offset, appended_at, key = place
        return StoredFrame(topic, partition, offset, appended_at, accepted, key, headers, payload, events, rejects)

    def _decoded(self, place: Place, payload: bytes) -> tuple[int, int]:
        """How many events and rejects it has given."""
        broken, salt = "", (place.offset << _PARTITION_BITS ^ place.partition) & _SALT_MAX
        for body in (payload, b'{"batch":[' + payload + b"]}"):
            # A fold decodes it again: an event without id and time must get the same id then.
            self._decoder.salt(salt)
            try:
                accepted, rejected, _ = self._decoder.append(body, place.appended_at)
            except BodyError as error:
                broken = str(error)
                continue
            if rejected:
                self._order += range(self._reject_rows, self._reject_rows + rejected)
                self._reject_rows += rejected
            return accepted, rejected
        return self._refused(place, payload, f"a message that is not JSON: {broken}")

    def _refused(self, place: Place, payload: bytes, detail: str) -> tuple[int, int]:
        self._order.append(~len(self._broken))
        self._broken_bytes += len(payload)
        letter = {
            "reason": Reason.NOT_AN_OBJECT,
            "detail": detail,
            "payload": payload,
            "received_at": place.appended_at,
        }
        self._broken.append(letter)
        return 0, 1

    def seal(self) -> None:
        """Make the batches of what was taken since the last time."""
        if not self._messages:
            return
        self._events.batch, rejects = self._decoder.finish()
        if self._broken:
            both = pa.Table.from_batches([rejects, pa.RecordBatch.from_pylist(self._broken, REJECT)])
            order = np.array(self._order)
            rows = np.where(order < 0, self._reject_rows + ~order, order)
            (rejects,) = both.take(rows).combine_chunks().to_batches()
        self._rejects.batch = rejects
        self._begin()
