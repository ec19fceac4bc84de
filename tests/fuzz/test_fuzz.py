"""The fuzz targets: the kept inputs on every run, libFuzzer under sanitizers in `make soak`."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import inputs
import pytest
from differential import check

from testbed.packages import locked

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
OUT = ROOT / "build" / "fuzz"
#: Targets in C, and how many times the usual share of time each is worth.
TARGETS = {"decode": 3, "text": 1, "bloom": 1, "event_bloom": 1, "sessionize": 1, "columns": 1, "schema": 1}
DIFFERENTIAL_SHARES = 10
INPUT_BYTES_MAX = 2048


def make(goal: str) -> None:
    """Build within tests/fuzz, one process at a time: the targets have objects in common."""
    with locked("fuzz"):
        done = subprocess.run(["make", "-s", "-j2", "-C", str(HERE), goal], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("data", [pytest.param(one, id=f"input {n}") for n, one in enumerate(inputs.kept("decode"))])
def test_decoder_orjson_and_twin_agree(data):
    check(data)


@pytest.mark.parametrize("target", [name for name in TARGETS if name != "decode"])
def test_kept_inputs_keep_the_promises(target, tmp_path):
    program = OUT / f"replay_{target}"
    make(os.path.relpath(program, HERE))
    files = inputs.write(target, tmp_path)
    assert files
    done = subprocess.run([program, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"{len(files)} inputs ran" in done.stderr


def fuzz(target: str, command: list[str], shares: int, **environ: str) -> None:
    """Run libFuzzer on a target for its share of FUZZ_MINUTES; what it finds stays in build/fuzz/found."""
    seconds = max(int(float(os.environ.get("FUZZ_MINUTES", "3")) * 60 * shares), 1)
    corpus, seeds, found = OUT / "corpus" / target, OUT / "seeds" / target, OUT / "found"
    for folder in (corpus, seeds, found):
        folder.mkdir(parents=True, exist_ok=True)
    inputs.write(target, seeds)
    options = [f"-max_total_time={seconds}", f"-max_len={INPUT_BYTES_MAX}", f"-artifact_prefix={found}/{target}-"]
    options += ["-timeout=20", "-print_final_stats=1"]
    if target in ("decode", "differential"):
        options.append(f"-dict={HERE / 'json.dict'}")
    done = subprocess.run(
        [*command, *options, str(corpus), str(seeds)],
        env={**os.environ, **environ}, capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    print("\n".join(line for line in done.stderr.splitlines() if "DONE" in line or line.startswith("stat::")))
    set_up = " ".join(f"{name}={shlex.quote(value)}" for name, value in environ.items())
    assert done.returncode == 0, (
        f"{done.stderr[-6000:]}\n"
        f"The input is the newest in {found}. To replay: {set_up} {shlex.join(command)} FILE\n"
        f"Once mended, keep it: python tests/fuzz/inputs.py {target.replace('differential', 'decode')} FILE"
    )


@pytest.mark.soak
@pytest.mark.parametrize("target", TARGETS)
def test_fuzz(target):
    make("fuzz")
    fuzz(target, [str(OUT / f"fuzz_{target}")], TARGETS[target])


@pytest.mark.soak
def test_fuzz_beside_orjson():
    make(os.path.relpath(OUT / "libfuzzer.so", HERE))
    built = OUT / "covered"
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build", "--build-lib", str(built)],
        cwd=ROOT, env={**os.environ, "CC": "clang", "CXX": "clang++", "EVENTMILL_SANITIZE": "fuzzer-no-link"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    command = [sys.executable, str(HERE / "differential.py")]
    fuzz("differential", command, DIFFERENTIAL_SHARES, LIBFUZZER=str(OUT / "libfuzzer.so"), PYTHONPATH=str(built))
