"""``python -m bench [NAME …]``: run benchmarks, keep the figures in ``bench/results`` and write them into the docs."""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
from pathlib import Path

from bench.report import PAGES, RESULTS, write

NAMES = (
    "decode", "kernels", "growth", "scaling", "counts", "frames", "stages", "lake", "store", "columns", "keys", "kafka",
    "foreign", "groups", "transactions", "snapshots", "dimensions", "e2e", "memory", "cost", "queries", "users",
)  # fmt: skip


def main() -> None:
    """Run what is named, or all."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all if none is given")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, nothing is kept: does it run?")
    parser.add_argument("--docs", action="store_true", help="run nothing, write the docs from the figures kept")
    parser.add_argument("--data", type=Path, help="for queries and users: a folder that bench.month has made")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(NAMES)
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    for name in [] if arguments.docs else arguments.names or NAMES:
        print(f"{name} …", flush=True)
        module = importlib.import_module(f"bench.{name}")
        given = {"data": arguments.data} if "data" in inspect.signature(module.run).parameters else {}
        figures = module.run(smoke=arguments.smoke, **given)
        print(module.render(figures), flush=True)
        if not arguments.smoke:
            (RESULTS / f"{name}.json").write_text(json.dumps(figures, indent=2) + "\n")
    if not arguments.smoke:
        for page in PAGES:
            write(page)


if __name__ == "__main__":
    main()
