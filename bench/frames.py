"""What a frame costs and weighs: the columns' encodings and the codecs, beside the naive way (all texts as strings)."""

from __future__ import annotations

import statistics
import time
from typing import Any, Final

import pyarrow as pa

from bench import machine
from bench.decode import make_events, to_bodies
from eventmill._native.decode import Decoder
from eventmill.core.schema import WORD
from eventmill.generate.stream import Spec, stream
from eventmill.serve.tuning import tune

_START_MS: Final = 1_795_000_000_000
_READ: Final = pa.ipc.IpcReadOptions(use_threads=False)


def run(*, smoke: bool = False) -> dict[str, Any]:
    """Frames of 16 k events of both kinds of traffic."""
    if not smoke:
        tune()
    events, runs = (500, 1) if smoke else (16_384, 9)
    app = [body for block in stream(Spec(events, 1, _START_MS, 600_000)) for body in block.bodies]
    return {
        "question": "CPU ns and bytes an event of one frame",
        "machine": machine.describe("pyarrow"),
        "events": events,
        "runs": runs,
        "traffic": {
            "shopping app": compare(decoded(app), runs),
            "plain": compare(decoded(to_bodies(make_events(events, 1), 100)), runs),
        },
    }


def decoded(bodies: list[bytes]) -> pa.RecordBatch:
    """The bodies' good events."""
    decoder = Decoder()
    for body in bodies:
        decoder.append(body, _START_MS + 600_000)
    return decoder.finish()[0]


def compare(words: pa.RecordBatch, runs: int) -> dict[str, dict[str, float]]:
    """Each way to write the rows; all read back the same."""
    strings = words.cast(
        pa.schema([field.with_type(pa.string()) if field.type == WORD else field for field in words.schema])
    )
    ways = {
        f"{columns}, {codec}": (batch, pa.ipc.IpcWriteOptions(compression=_CODECS[codec], use_threads=False))
        for columns, batch in (("strings", strings), ("words", words))
        for codec in _CODECS
    }
    for batch, options in ways.values():
        if not read(write(batch, options)).cast(strings.schema).equals(pa.Table.from_batches([strings])):
            raise SystemExit("a frame does not read back as it was written")
    taken: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    sizes = {}
    for _ in range(runs):
        for way, (batch, options) in ways.items():
            begun = time.process_time()
            payload = write(batch, options)
            written = time.process_time()
            read(payload)
            taken[way].append((written - begun, time.process_time() - written))
            sizes[way] = payload.size
    ns = 1e9 / words.num_rows
    return {
        way: {
            "write_ns": round(statistics.median(pair[0] for pair in pairs) * ns),
            "read_ns": round(statistics.median(pair[1] for pair in pairs) * ns),
            "bytes": round(sizes[way] / words.num_rows, 1),
        }
        for way, pairs in taken.items()
    }


_CODECS: Final = {"LZ4": "lz4", "zstd -1": pa.Codec("zstd", 1)}


def write(batch: pa.RecordBatch, options: pa.ipc.IpcWriteOptions) -> pa.Buffer:
    """An Arrow IPC stream of the batch."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


def read(payload: pa.Buffer) -> pa.Table:
    """What the stream holds."""
    with pa.ipc.open_stream(payload, options=_READ) as reader:
        return reader.read_all()


def render(figures: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = ["| traffic | columns, codec | write, ns an event | read | bytes |", "|---|---|---|---|---|"]
    for traffic, ways in figures["traffic"].items():
        for way, cost in ways.items():
            cells = f"{cost['write_ns']:.0f} | {cost['read_ns']:.0f} | {cost['bytes']:.0f}"
            lines.append(f"| {traffic} | {way} | {cells} |")
    return "\n".join(lines)
