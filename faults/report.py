"""What the matrix showed: kept in results.json, written to docs/faults.md."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from faults.scene import Result

ROOT: Final = Path(__file__).parents[1]
RESULTS: Final = ROOT / "faults" / "results.json"
PAGE: Final = ROOT / "docs" / "faults.md"
#: How notes begin that are no counts.
MAXIMA: Final = ("longest", "most")
#: Rows of the matrix that are tests of their own: what is broken, and where.
ELSEWHERE: Final = (
    (16, "a reader while compactors die and meet", "in rows 14 and 15: wrong answers count as corrupt", ()),
    (
        20,
        "bombs, huge heads, many and slow connections",
        "`make test`",
        (
            "tests/unit/test_inflate.py", "tests/unit/test_http_framing.py", "tests/integration/test_ingest.py",
            "tests/integration/test_ingest_connections.py",
        ),
    ),
    (21, "fuzzing under the address and undefined behaviour sanitizers", "`make soak`", ("tests/fuzz/test_fuzz.py",)),
    (
        23,
        "hostile names, SQL injection, other tenants' keys",
        "`make test`",
        (
            "tests/integration/test_isolation.py", "tests/integration/test_keys.py", "tests/integration/test_query_sql.py",
            "tests/integration/test_lake_table.py", "tests/integration/test_schemas.py",
        ),
    ),
    (
        24,
        "the filter at its load: the rate is the formula's, no id is forgotten",
        "`make test`",
        ("tests/kernels/test_bloom.py", "tests/kernels/test_event_bloom.py"),
    ),
)  # fmt: skip
_HEAD: Final = """# Faults

Whatever was acknowledged with 200 is stored exactly once in each store, through the crash of any process and the loss of a
broker. Here is what was broken on purpose, how often, and what the oracle said: the generator writes down what it is about to
send, then sends it until each request has its answer, and afterwards every id is looked for in the stores. **Lost** is
acknowledged and absent, **doubled** stored more than once; phantoms (never sent) and corrupt events (not as they were sent) are
looked for too, the sums of the roll-ups have to be those of the rows, and the ledger has to balance.

Load: 3,000 events a second, 5 % of them client duplicates, 2 % late, 1 % bad. Recovery is from the fault until all that stood
on the log at the fault has been processed and committed, restart included; for ingest, until requests are answered again. The
duplicate filter has room for what comes; row 24 fills it.

**One machine** is `eventmill serve`: one process with the embedded log and both stores. **Three brokers** are Apache Kafka with
replication factor 3, and one ingest, two processors and one sink as processes of their own; ingest and processors reach the
brokers through a proxy that breaks connections. "10 of 20" are the runs that were made of those that the matrix plans.

`make faults` runs all of it and writes this page, `python -m faults --rows 1,4 --runs 10` a part, `--on brokers` the rows on
brokers; runs of the same code on the same machine add up. `make test` runs a small size, `make soak` the long rows of one
machine. `faults/results.json` has every recovery, and which version of the code it was.

"""
_CONTROLS: Final = """
## Negative controls

Each breaks one promise on purpose. An oracle that saw nothing here would prove nothing above.

| broken | the oracle says | the same work, whole |
|---|---|---|
"""


@dataclass(frozen=True)
class Control:
    """A negative control: the fault counts that are not zero, of the broken run and of the whole one."""

    name: str
    broken: dict[str, int]
    whole: dict[str, int]

    @property
    def caught(self) -> bool:
        """The oracle saw what was broken, and nothing else."""
        return bool(self.broken) and not self.whole


def save(
    results: Iterable[Result], controls: Iterable[Control], machine: str, code: str = "", path: Path = RESULTS
) -> dict[str, Any]:
    """Put results beside those kept; gives all of them.

    Runs of a row are added to those of the same machine and ``code`` (which version of everything ran; empty: not known),
    and take the place of others. A control's verdict takes the place of the older one.
    """
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"rows": {}, "controls": {}}
    for result in results:
        row = {**asdict(result), "recoveries": [round(seconds, 2) for seconds in result.recoveries]}
        row = {**row, "machine": machine, "code": code}
        key = f"{result.number:02d} {result.system}"
        before = kept["rows"].get(key, {})
        same = code and all(before.get(name) == row[name] for name in ("machine", "code", "title"))
        kept["rows"][key] = _sum(before, row) if same else row
    for control in controls:
        kept["controls"][control.name] = asdict(control)
    kept = {name: dict(sorted(kept[name].items())) for name in ("rows", "controls")}
    path.write_text(json.dumps(kept, indent=1) + "\n")
    return kept


def _sum(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Both rows as one. Notes that say what was the most, or the longest, are no counts."""
    counts = ("runs", "acked", "lost", "doubled", "phantom", "corrupt")
    notes = dict(one["notes"])
    for name, number in other["notes"].items():
        combined = max if name.startswith(MAXIMA) else sum
        notes[name] = combined([notes.get(name, 0), number])
    return {
        **other,
        **{name: one[name] + other[name] for name in counts},
        "balanced": one["balanced"] and other["balanced"],
        "recoveries": one["recoveries"] + other["recoveries"],
        "notes": notes,
    }


def page(kept: dict[str, Any]) -> str:
    """The page about all results."""
    lines = [_HEAD + "| # | fault | on | runs | acknowledged | lost | doubled | recovery p50 | p99 |", "|---" * 9 + "|"]
    lines += [
        f"| {row['number']} | {row['title']} | {row['system']} | {_runs(row)} | {row['acked']:,} | {row['lost']} | "
        f"{row['doubled']} | {_seconds(row['recoveries'], 50)} | {_seconds(row['recoveries'], 99)} |"
        for row in kept["rows"].values()
    ]
    runs = sum(row["runs"] for row in kept["rows"].values())
    acked = sum(row["acked"] for row in kept["rows"].values())
    broken = sum(row["lost"] + row["doubled"] + row["phantom"] + row["corrupt"] for row in kept["rows"].values())
    lines += ["", f"{runs:,} faults, {acked:,} events acknowledged, {broken:,} of them lost, doubled or not as sent."]
    if runs and not broken:
        lines[-1] += (
            f" With none in {runs:,} runs, the chance of one in a run is below {3 / runs:.2%} (95 %, rule of three)."
        )
    lines += ["", *(_notes(row) for row in kept["rows"].values() if row["notes"])]
    machines = sorted({row["machine"] for row in kept["rows"].values()})
    lines += ["", f"Measured on {'; '.join(machines)}."]
    lines += ["", *_elsewhere()]
    text = "\n".join(lines) + "\n" + _CONTROLS
    for control in kept["controls"].values():
        text += f"| {control['name']} | {_counts(control['broken'])} | {_counts(control['whole'])} |\n"
    return text


def _runs(row: dict[str, Any]) -> str:
    """How many there were, and of how many where that is fewer than are planned."""
    return f"{row['runs']} of {row['planned']}" if row["runs"] < row["planned"] else str(row["runs"])


def _notes(row: dict[str, Any]) -> str:
    notes = ", ".join(f"{name}: {count:,}" for name, count in row["notes"].items())
    return f"- Row {row['number']}, {row['system']}: {notes}"


def _elsewhere() -> list[str]:
    """Where the rest of the matrix is."""
    lines = ["The rest of the matrix is tests of its own, where no load and no recovery is to be measured:", ""]
    lines += ["| # | fault | run by | tests |", "|---" * 4 + "|"]
    return lines + [
        f"| {number} | {what} | {how} | {', '.join(f'`{path}`' for path in paths)} |"
        for number, what, how, paths in ELSEWHERE
    ]


def _seconds(values: list[float], percent: int) -> str:
    if not values:
        return ""
    if percent == 50:
        return f"{statistics.median(values):.1f} s"
    ordered = sorted(values)
    return f"{ordered[min(len(ordered) - 1, round(percent / 100 * len(ordered)))]:.1f} s"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items()) or "nothing"
