"""``python -m faults``: run the matrix and the negative controls, write docs/faults.md. Exit 1 when any promise broke."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import Progress

from bench import machine
from faults.brokers import BROKERS
from faults.controls import CONTROLS, faults_of
from faults.report import PAGE, ROOT, Control, page, save
from faults.rows import MATRIX
from faults.scene import run
from faults.unclear import reuse_timed_out_producer
from testbed.faults import FaultProxy
from testbed.kafka import Kafka

ROWS: Final = (*MATRIX, *BROKERS)
SYSTEMS: Final = {"alone": MATRIX, "brokers": BROKERS}
#: What a result is a result of.
CODE: Final = ("engine", "csrc", "bindings", "faults/*.py", "testbed")


def here() -> str:
    """The machine in a few words."""
    found = machine.describe()
    return f"{found['cores']} cores of {found['processor']}, {found['system']}, Python {found['python']}"


def version() -> str:
    """The commit whose code runs here; empty when that is not known, or the code is not as it was committed."""
    try:
        changed = _git("status", "--porcelain", "--", *CODE)
        return "" if changed else _git("log", "-1", "--format=%h", "--", *CODE)
    except (OSError, subprocess.CalledProcessError):
        return ""


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def controls() -> Iterator[Control]:
    """Each control, broken and whole."""
    with tempfile.TemporaryDirectory(prefix="eventmill-faults-") as name:
        for number, (title, control) in enumerate(CONTROLS.items()):
            folder = Path(name) / str(number)
            broken, whole = control(folder / "broken", True), control(folder / "whole", False)
            yield Control(title, faults_of(broken), faults_of(whole))
        with Kafka() as kafka, FaultProxy.before(kafka.nodes) as proxy:
            broken, whole = (
                reuse_timed_out_producer(kafka, proxy, Path(name) / f"unclear-{breaks}", breaks)
                for breaks in (True, False)
            )
        yield Control("reuse of a timed-out producer", faults_of(broken), faults_of(whole))


def main(arguments: Sequence[str] | None = None) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("--rows", help="numbers of rows, separated by commas (default: all)")
    parser.add_argument("--on", choices=sorted(SYSTEMS), help="rows of this system only")
    parser.add_argument("--runs", type=int, help="faults of each row (default: the matrix's)")
    parser.add_argument("--no-controls", action="store_true", help="leave out the negative controls")
    parser.add_argument("--no-page", action="store_true", help="print only, keep the page as it is")
    given = parser.parse_args(arguments)
    numbers = {int(number) for number in given.rows.split(",")} if given.rows else {row.number for row in ROWS}
    if unknown := numbers - {row.number for row in ROWS}:
        parser.error(f"there is no row {min(unknown)}; the rows are {sorted({row.number for row in ROWS})}")
    results, shown = [], []
    code = version()
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        for row in (row for row in SYSTEMS.get(given.on, ROWS) if row.number in numbers):
            if why := row.why_not():
                progress.console.print(f"{row.number:>2} {row.title}: left out, {why}")
                continue
            runs = given.runs or row.runs
            task = progress.add_task(f"{row.number:>2} {row.title}", total=runs)
            results.append(run(row, runs, told=lambda done, of=task: progress.update(of, completed=done)))  # type: ignore[misc]
            progress.console.print(f"{row.number:>2} {row.title}: {'good' if results[-1].good else results[-1]}")
            if not given.no_page:
                PAGE.write_text(page(save(results[-1:], (), here(), code)))
        for control in () if given.no_controls else controls():
            shown.append(control)
            progress.console.print(f"control, {control.name}: {'caught' if control.caught else control}")
    if not given.no_page:
        PAGE.write_text(page(save((), shown, here())))
    return 0 if all(result.good for result in results) and all(control.caught for control in shown) else 1


if __name__ == "__main__":
    sys.exit(main())
