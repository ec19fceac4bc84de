"""The oracle: judges a store by the truth file.

Per id: **lost** = acked and absent; **doubled** = stored more than once; **phantom** = never sent; **corrupt** = stored with
another payload than sent. An event of unknown outcome may be stored once or not at all; a bad one must not be stored.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eventmill.core.ids import format_event_id
from eventmill.generate.truth import payload_hashes

_EXAMPLES: Final = 10


@dataclass(frozen=True, slots=True)
class Verdict:
    """Counts of ids, and a few of them for each fault."""

    sent: int
    unique: int
    acked: int
    unknown: int
    stored: int
    lost: int
    doubled: int
    phantom: int
    corrupt: int
    unknown_stored: int
    examples: dict[str, list[str]] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """No fault at all."""
        return not (self.lost or self.doubled or self.phantom or self.corrupt)

    def as_dict(self) -> dict[str, Any]:
        """For machines."""
        return {**asdict(self), "good": self.good}


def stored_rows(events: pa.Table) -> pa.Table:
    """What ``judge`` needs of stored events: ``id``, ``payload_hash``.

    ``events`` has event_id, event, device_id, properties, original_timestamp.
    """
    original = events.column("original_timestamp").cast(pa.timestamp("ms", "UTC"), safe=False).cast(pa.int64())
    names = ("event", "device_id", "properties")
    event, device, properties = (events.column(name).cast(pa.string()) for name in names)
    return pa.table(
        {
            "id": events.column("event_id"),
            "payload_hash": pa.chunked_array([payload_hashes(event, device, properties, original)]),
        }
    )


def judge(truth: pa.Table, stored: pa.Table) -> Verdict:
    """``truth``: TruthFile.read(); ``stored``: ``stored_rows``, one row a stored event."""
    good = truth.filter(pc.not_equal(truth.column("kind"), "bad"))
    acked = pc.equal(good.column("outcome"), "acked").cast(pa.int8())
    refused = pc.equal(good.column("outcome"), "refused").cast(pa.int8())
    sent = (
        pa.table({"id": good["id"], "hash": good["payload_hash"], "acked": acked, "refused": refused})
        .group_by("id")
        .aggregate([("hash", "min"), ("acked", "max"), ("refused", "min")])
    )
    found = stored.group_by("id").aggregate([("payload_hash", "min"), ("payload_hash", "max"), ("id", "count")])
    joined = sent.append_column("sent", pa.array(np.ones(len(sent), bool))).join(found, "id", join_type="full outer")

    def column(name: str, otherwise: int) -> Any:
        return pc.fill_null(joined.column(name), otherwise).to_numpy()

    was_sent = pc.fill_null(joined.column("sent"), False).to_numpy()
    was_acked, copies = column("acked_max", 0) > 0, column("id_count", 0)
    hashes = (column("payload_hash_min", 0), column("payload_hash_max", 0))
    differs = (hashes[0] != column("hash_min", 0)) | (hashes[1] != column("hash_min", 0))
    open_outcome = was_sent & ~was_acked & (column("refused_min", 0) == 0)
    faults = {
        "lost": was_acked & (copies == 0),
        "doubled": copies > 1,
        "phantom": ~was_sent & (copies > 0),
        "corrupt": was_sent & (copies > 0) & differs,
    }
    ids = joined.column("id").combine_chunks()
    examples = {
        name: [format_event_id(raw) for raw in ids.filter(pa.array(mask)).slice(0, _EXAMPLES).to_pylist()]
        for name, mask in faults.items()
        if mask.any()
    }
    return Verdict(
        sent=truth.num_rows,
        unique=int(was_sent.sum()),
        acked=int(was_acked.sum()),
        unknown=int(open_outcome.sum()),
        stored=int(copies.sum()),
        lost=int(faults["lost"].sum()),
        doubled=int((copies[faults["doubled"]] - 1).sum()),
        phantom=int(faults["phantom"].sum()),
        corrupt=int(faults["corrupt"].sum()),
        unknown_stored=int((open_outcome & (copies > 0)).sum()),
        examples=examples,
    )
