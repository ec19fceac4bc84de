"""The inputs that fuzzing starts from: what SDKs sent, the JSON parsing test suite, and what was found worth keeping.

A corpus is a file of JSON strings, one a line, whose characters stand for bytes (Latin-1): inputs can be read and compared.
``python tests/fuzz/inputs.py TARGET FILE …`` adds the inputs in files to a target's corpus.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

DATA = Path(__file__).parent.parent / "data"
CORPUS = Path(__file__).parent / "corpus"
SEPARATOR = b"\x1e"

_EVENT = b'{"type": "track", "event": "E", "userId": "u", "properties": {"x": %s}}'
_IDS = b'"messageId": "00000000-0000-4000-8000-00000000000%d", "originalTimestamp": "2026-11-23T02:13:20.00%dZ"'
_BODIES = [
    b'{"batch": [], "sentAt": "2026-11-23T02:13:20Z"}',
    b'{"type": "screen", "name": "N", "category": "c", "anonymousId": 5, "properties": {"name": null}}',
    b'{"type": "identify", "userId": "u", "traits": {"plan": "p"}, "messageId": "m", "timestamp": 1795400000.5}',
    b'{"batch": [{"type": "page", "userId": "u", "context": {"_batch": 1, "_unmapped": {}}, "x": 1}, 7], "other": [1, {}]}',
    b'{"batch": [{"type": "alias", "userId": "u"}], "context": {"device": {"id": "d", "model": "\\u00fc"}, "locale": "de"}}',
    b'{"context": {"app": {"version": "1"}, "os": {"name": "iOS", "version": 2}}, "batch": [{"type": "group", "userId": "u"}]}',
    b'{"batch": [{"type": "track", "event": "\\ud83d\\ude00", "anonymousId": "a", "sentAt": "x", %s}], "writeKey": "k"}'
    % (_IDS % (1, 1)),
    b'{"batch": [%s]}' % b", ".join(b'{"type": "track", "event": "E", "userId": "u", %s}' % (_IDS % (i, i)) for i in range(4)),
]  # fmt: skip
_TEXTS = [
    b"2026-11-23T02:13:20.123456789+01:30", b"2024-02-29", b"1795400000123.9", b"-1.7954e9", b"0001-01-01T00:00:00Z",
    b"9999-12-31 23:59:60-23:59", b"00000000-0000-4000-8000-00000000000A",
]  # fmt: skip


def decode_seeds() -> list[bytes]:
    """Bodies for the decoder, the byte of options before each."""
    captured = [json.loads(line) for line in (DATA / "sdk_requests" / "captured.jsonl").read_text().splitlines()]
    bodies = [*_BODIES, *(request["body"].encode() for request in captured)]
    bodies.append(SEPARATOR.join(_BODIES[4:]))
    # What was learned of one event meets one that is like it, but for a value.
    bodies += [_EVENT % b"1" + SEPARATOR + _EVENT % value for value in (b"", b'"x"', b"[]", b"1 ", b"null", b"01")]
    for file in sorted((DATA / "json_test_suite" / "test_parsing").glob("*.json")):
        value = file.read_bytes()
        if len(value) < 200:
            bodies += [value, b'{"batch": [%s]}' % (_EVENT % value)]
    return [*(b" " + body for body in bodies), b"(" + _BODIES[3], b"1" + _BODIES[1]]


def kept(target: str) -> list[bytes]:
    """The committed corpus of a target."""
    file = CORPUS / f"{target}.jsonl"
    if not file.exists():
        return []
    return [json.loads(line).encode("latin-1") for line in file.read_text().splitlines()]


def keep(target: str, inputs: list[bytes]) -> None:
    """Write the corpus of a target, the shortest first."""
    lines = sorted({json.dumps(one.decode("latin-1")) for one in inputs}, key=lambda line: (len(line), line))
    CORPUS.mkdir(exist_ok=True)
    (CORPUS / f"{target}.jsonl").write_text("".join(f"{line}\n" for line in lines))


def seeds(target: str) -> list[bytes]:
    """All that fuzzing of a target starts from."""
    made = {"decode": decode_seeds, "differential": decode_seeds, "text": lambda: _TEXTS}
    return [*made.get(target, list)(), *kept("decode" if target == "differential" else target)]


def write(target: str, folder: Path) -> list[Path]:
    """The seeds as files in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number, one in enumerate(seeds(target)):
        files.append(folder / f"{target}-{number:05d}")
        files[-1].write_bytes(one)
    return files


if __name__ == "__main__":
    keep(sys.argv[1], [*kept(sys.argv[1]), *(Path(name).read_bytes() for name in sys.argv[2:])])
