"""Imports go one way."""

from __future__ import annotations

import ast
from pathlib import Path

ENGINE = Path(__file__).parents[2] / "engine" / "eventmill"
#: Lower ones may not import higher ones; packages of one level do not import one another.
LEVELS = [
    {"core"},
    {"_native"},
    {"kernels", "net", "log"},
    {"dashboard", "observe", "generate", "process", "sinks", "lake", "query"},
    {"openapi"},  # describes what they take
    {"ingest"},  # counts by observe.metrics
    {"serve"},
    {"spark"},  # does what they do on a cluster
    {"cli"},
]


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("eventmill."):
            yield node.module.split(".")[1], [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "eventmill":
            yield from ((alias.name, []) for alias in node.names)


def level(package):
    return next(number for number, packages in enumerate(LEVELS) if package in packages)


def test_imports_go_one_way():
    packages = {path.name for path in ENGINE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert packages == set.union(*LEVELS)
    wrong = []
    for path in ENGINE.rglob("*.py"):
        package = path.relative_to(ENGINE).parts[0]
        if package not in packages:
            continue
        for target, _ in imported(path):
            if target in packages and target != package and level(target) >= level(package):
                wrong.append(f"{path.relative_to(ENGINE)} imports {target}")
    assert wrong == []
