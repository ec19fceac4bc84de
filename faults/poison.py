"""Row 19: bodies and events that nobody should send. Each has one right answer, and none may reach a store."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import orjson

from faults.scene import Scene
from faults.sending import post

_CORPUS: Final = Path(__file__).parents[1] / "tests" / "data" / "json_test_suite" / "test_parsing"
_BATCHES: Final = 25
_EVENTS: Final = 20
_WHOLE: Final = {"type": "track", "event": "Poison", "userId": "u"}


def _deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


#: An event for each reason of a dead letter at ingest.
EVENTS: Final[dict[str, Callable[[random.Random], Any]]] = {
    "not_an_object": lambda rng: rng.choice([17, "x", None, [], [[]], True]),
    "unknown_type": lambda rng: {**_WHOLE, "type": rng.choice(["nope", "", "TRACK", "a\x00b"])},
    "missing_event": lambda _: {"type": "track", "userId": "u"},
    "missing_identity": lambda _: {"type": "track", "event": "Poison"},
    "wrong_field_type": lambda rng: {**_WHOLE, rng.choice(["properties", "event", "userId"]): rng.choice([[], True])},
    "bad_timestamp": lambda rng: {**_WHOLE, "timestamp": rng.choice(["yesterday", "2026-13-45T99:99:99Z", "\x00"])},
    "event_too_large": lambda rng: {**_WHOLE, "properties": {"text": "x" * rng.randint(33_000, 60_000)}},
    "name_too_long": lambda rng: {**_WHOLE, "event": "n" * rng.randint(300, 3_000)},
    "too_deep": lambda rng: {**_WHOLE, "properties": {"deep": _deep(rng.randint(80, 200))}},
}


def bodies() -> list[bytes]:
    """Bodies that are no JSON, JSON that is no batch, and one of 10 MB."""
    broken = [path.read_bytes() for path in sorted(_CORPUS.glob("n_*.json"))]
    return [*broken, b"", b"\x00" * 100, b"[]", b"17", b'"' + b"x" * 10_000_000 + b'"']


def poison(scene: Scene) -> None:
    """All broken bodies and some hundred bad events, while the load goes on; nobody may end because of it."""
    alive = scene.system.workers()

    def act() -> None:
        for body in bodies():
            status, answer = post(scene.system.url, body)
            assert status in (400, 413), (status, answer, body[:100])
            scene.notes["bodies refused"] += 1
        for _ in range(_BATCHES):
            events = [EVENTS[scene.rng.choice(list(EVENTS))](scene.rng) for _ in range(_EVENTS)]
            status, answer = post(scene.system.url, orjson.dumps({"batch": events}))
            if status == 413:  # more than a request may have
                continue
            assert (status, answer["accepted"], answer["rejected"]) == (200, 0, len(events)), (status, answer, events)
            scene.notes["events rejected"] += len(events)

    scene.strike(act)
    assert scene.system.workers() == alive, "an ingest process ended"
