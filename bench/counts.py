"""What a kernel's event costs in instructions and cache misses, counted by valgrind's simulation: the same on a busy machine.

Each kernel's work of ``bench.scaling`` is run a few times and once, and the difference counted, so that Python's start and the
making of the input are not in it. valgrind knows no AVX-512, so these are the AVX2 variants; its caches are 32 KiB and 32 MiB.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from bench import machine, scaling

MAKERS: Final = {
    "decode": scaling.decode,
    "dedup": scaling.dedup,
    "sessionize": scaling.sessionize,
    "enrich": scaling.enrich,
    "partition": scaling.split,
}
_VALGRIND: Final = ["valgrind", "--tool=cachegrind", "--cache-sim=yes", "--D1=32768,8,64", "--LL=33554432,16,64"]
_TOTAL: Final = re.compile(r"(I +refs|D1 +misses|LLd misses): +([\d,]+)")
_NAMES: Final = {"I refs": "instructions", "D1 misses": "misses_l1", "LLd misses": "misses_last"}


def run(*, smoke: bool = False) -> dict[str, Any]:
    """Every kernel. Smoke runs the works without counting, as does a machine without valgrind."""
    # Many calls, beside which what differs between two processes is nothing.
    items, calls = (200, 2) if smoke else (16_384, 33)
    counted = not smoke and shutil.which("valgrind") is not None
    kernels = {}
    for name in MAKERS:
        one, several = (count(name, items, number, counted=counted) for number in (1, calls))
        kernels[name] = {key: round((several[key] - one[key]) / (calls - 1) / items, 2) for key in one}
    return {
        "question": "instructions and cache misses an item, simulated",
        "machine": machine.describe("pyarrow"),
        "items": items,
        "counted": counted,
        "kernels": kernels,
    }


def count(name: str, items: int, calls: int, *, counted: bool) -> dict[str, int]:
    """Totals of one process that does the work ``calls`` times."""
    code = f"from bench.counts import MAKERS; work = MAKERS[{name!r}]({items}, 0); [work() for _ in range({calls})]"
    prefix = [*_VALGRIND, "--cachegrind-out-file=/dev/null"] if counted else []
    environ = {**os.environ, "EVENTMILL_CPU": "avx2"} if counted else dict(os.environ)
    environ["PYTHONHASHSEED"] = "0"
    done = subprocess.run(
        [*prefix, sys.executable, "-c", code],
        env=environ, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"counting {name} failed: {done.stderr[-2000:]}")
    totals = {" ".join(kind.split()): int(number.replace(",", "")) for kind, number in _TOTAL.findall(done.stderr)}
    return {key: totals.get(shown, 0) for shown, key in _NAMES.items()}


def render(figures: dict[str, Any]) -> str:
    """The figures as Markdown."""
    if not figures["counted"]:
        return f"{len(figures['kernels'])} kernels ran; nothing was counted."
    lines = ["| kernel | instructions an item | L1 misses | last-level misses |", "|---|---|---|---|"]
    for name, taken in figures["kernels"].items():
        lines.append(
            f"| {name} | {taken['instructions']:,.0f} | {taken['misses_l1']:.2f} | {taken['misses_last']:.2f} |"
        )
    return "\n".join(lines)
