"""Every variant of the kernels' code is run by the kernels' own tests, in a process that is told which."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from eventmill.kernels import cpu

HERE = Path(__file__).parent
IMPLEMENTATIONS = {"portable": "fallback", "avx2": "haswell", "avx512": "icelake"}


def python(*arguments: str, level: str | None = None) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if name != "EVENTMILL_CPU"}
    if level is not None:
        environ["EVENTMILL_CPU"] = level
    return subprocess.run([sys.executable, *arguments], env=environ, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("level", cpu.AVAILABLE[:-1])
def test_the_variant_named_runs(level):
    shown = python(
        "-c",
        "from eventmill._native import decode; from eventmill.kernels import cpu; print(cpu.CHOSEN, decode.IMPLEMENTATION)",
        level=level,
    )
    assert shown.stdout.split() == [level, IMPLEMENTATIONS[level]], shown.stderr


def test_the_best_runs_when_none_is_named():
    shown = python("-c", "from eventmill.kernels import cpu; print(cpu.CHOSEN)")
    assert shown.stdout.split() == [cpu.AVAILABLE[-1]]


def test_a_name_that_is_none_is_refused():
    shown = python("-c", "import eventmill", level="abacus")
    assert shown.returncode != 0
    assert "EVENTMILL_CPU is 'abacus'; this processor has portable" in shown.stderr


@pytest.mark.parametrize("level", cpu.AVAILABLE[:-1])
def test_the_kernels_tests_pass_with(level):
    tests = [
        "test_bloom.py", "test_event_bloom.py", "test_decode_json_suite.py", "test_decode_bodies.py", "test_gather.py",
    ]  # fmt: skip
    done = python(
        "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *(str(HERE / name) for name in tests), level=level
    )
    assert done.returncode == 0, done.stdout
