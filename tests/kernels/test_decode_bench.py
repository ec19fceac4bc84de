"""The benchmark of the decoder runs, and its contenders agree."""

from __future__ import annotations

import importlib.util
from pathlib import Path

BENCH = Path(__file__).parents[2] / "bench" / "decode.py"


def test_the_benchmark_runs() -> None:
    spec = importlib.util.spec_from_file_location("bench_decode", BENCH)
    assert spec is not None
    assert spec.loader is not None
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    figures = bench.measure(events=300, batch=10, rows=100, runs=1, seed=1)
    assert set(figures["ratio"]) == {"orjson_pyarrow", "pyarrow_json"}
    assert figures["events_per_second"]["eventmill"]["median"] > 0
