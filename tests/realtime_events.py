"""Random events for the tests of the real-time store and the queries."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa

from eventmill.core.schema import EVENT, TIME, WORD
from eventmill.core.typed import Kind, Typed, TypedProperty

DAY_MS = 86_400_000
#: A midnight.
START_MS = 20_600 * DAY_MS
#: For stores whose answers have to be the same with columns for some properties.
TYPED = Typed.of(
    [
        TypedProperty("price", Kind.NUMBER, ("purchase", "tap")),
        TypedProperty("category", Kind.WORD, ("purchase",)),
        TypedProperty("mixed", Kind.WORD, ("tap",)),
    ]
)
NAMES = ("tap", "purchase", "screen", "add to cart", "other", 'it\'s \\ "odd" {x:String} %s \n')


def plain(schema: pa.Schema) -> pa.Schema:
    """The schema with words as strings: tables whose dictionaries differ compare as unequal."""
    return pa.schema([field.with_type(pa.string()) if field.type == WORD else field for field in schema])


def _text(rng: np.random.Generator, values: list[str | None], count: int) -> pa.Array:
    return pa.array([values[i] for i in rng.integers(0, len(values), count)], pa.string())


def _properties(rng: np.random.Generator, count: int) -> list[str]:
    prices = (rng.integers(-500, 20_000, count) / 100).tolist()
    found = []
    for price, choice, kind in zip(
        prices, rng.integers(0, 8, count).tolist(), rng.integers(0, 6, count).tolist(), strict=True
    ):
        entry: dict[str, Any] = {"price": price, "cart": {"items": choice, "vip": choice % 2 == 0}}
        entry["mixed"] = [choice, choice / 4, str(choice), choice > 4, None, {"a": [choice]}][kind]
        if kind == 1:
            del entry["price"]
        elif kind == 2:
            entry["price"] = str(price)
        elif kind == 3:
            entry["price"] = None
        if kind != 5:
            entry["category"] = ["shoes", "hats", "bücher", "", "other", "x\ny", "o'clock", "100%"][choice]
        found.append(json.dumps(entry, ensure_ascii=bool(choice % 2), separators=(",", ":")))
    return found


def events(
    count: int,
    *,
    seed: int = 0,
    first_offset: int = 0,
    per_offset: int = 500,
    days: int = 3,
    devices: int = 400,
    coarse_ms: int = 1,
    project: str | None = None,
) -> pa.RecordBatch:
    """EVENT's columns and ``log_offset``; event times spread over ``days`` from ``START_MS`` on, ids all different.

    The clocks of every other device tick in steps of ``coarse_ms``, so that it has several events at one time.
    """
    rng = np.random.default_rng(seed)
    device = rng.integers(0, devices, count)
    at = START_MS + rng.integers(0, days * DAY_MS, count)
    at -= np.where(device % 2, at % coarse_ms, 0)
    received = at + rng.integers(0, 90_000, count)
    columns: dict[str, pa.Array] = {
        "event_id": pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(16), count, [None, pa.py_buffer(rng.bytes(16 * count))]
        ),
        "message_id": _text(rng, ["client-1", None, None], count),
        "event": _text(rng, list(NAMES), count),
        "type": _text(rng, ["track", "screen"], count),
        "device_id": pa.array([f"device-{i}" for i in device.tolist()]),
        "anonymous_id": _text(rng, ["anon", None], count),
        "user_id": pa.array([f"user-{i // 3}" if i % 4 else None for i in device.tolist()]),
        "timestamp": pa.array(at, TIME),
        "original_timestamp": pa.array(at - 500, TIME),
        "sent_at": pa.array([None if i % 5 == 0 else i for i in (at + 3).tolist()], pa.int64()).cast(TIME),
        "received_at": pa.array(received, TIME),
        "session_id": pa.array(device * 1_000_003 + (at - START_MS) // DAY_MS),
        "app_version": _text(rng, ["1.0", "1.1", "2.0"], count),
        "platform": _text(rng, ["ios", "android", "web", None], count),
        "os_version": _text(rng, ["17", "18", None], count),
        "device_model": _text(rng, [f"model {i}" for i in range(40)], count),
        "locale": _text(rng, ["de-DE", "en-US", ""], count),
        "country": _text(rng, ["DE", "FR", "unknown", None], count),
        "segment": _text(rng, ["new", "loyal", None], count),
        "tier": _text(rng, ["gold", "silver"], count),
        "properties": pa.array(_properties(rng, count)),
        "context": pa.array([f'{{"app":{{"build":{i % 7}}},"os":{{"name":"os {i % 3}"}}}}' for i in device.tolist()]),
        "flags": pa.array(rng.integers(0, 4, count).astype(np.int32)),
        "project": pa.array([project] * count, pa.string()),
    }
    batch = pa.RecordBatch.from_arrays([columns[field.name] for field in EVENT], schema=EVENT)
    offsets = (first_offset + np.arange(count) // per_offset).astype(np.uint64)
    return batch.append_column("log_offset", pa.array(offsets))
