"""Cutting up SQL of our own making: values are bound in it, so a parenthesis in it is one, and is closed."""

from __future__ import annotations

from collections.abc import Iterator


def split(sql: str, separator: str) -> list[str]:
    """The parts of ``sql`` between separators that stand in no parenthesis."""
    found, start = [], 0
    for at, depth in _depths(sql):
        if depth == 0 and at >= start and sql.startswith(separator, at):
            found.append(sql[start:at])
            start = at + len(separator)
    return [*found, sql[start:]]


def around(sql: str, place: int, separator: str) -> tuple[int, int]:
    """Where the part that holds ``place`` begins and ends: at its parentheses, or at separators between those."""
    start, depth = 0, 0
    for at in range(place - 1, -1, -1):
        depth += (sql[at] == ")") - (sql[at] == "(")
        if depth < 0 or (depth == 0 and sql.startswith(separator, at)):
            start = at + 1 if depth < 0 else at + len(separator)
            break
    for step, depth in _depths(sql[place:]):
        if depth < 0 or (depth == 0 and sql.startswith(separator, place + step)):
            return start, place + step
    return start, len(sql)


def call(expression: str) -> tuple[str, str, str] | None:
    """A call's name, its parameters with their parentheses (or nothing), and its arguments; null where it is none."""
    name = expression.partition("(")[0]
    closed = [at for at, depth in _depths(expression) if depth == 0 and expression[at] == ")"]
    if not name.isidentifier() or not closed or closed[-1] != len(expression) - 1 or len(closed) > 2:
        return None
    if len(closed) == 1:
        return name, "", expression[len(name) + 1 : -1]
    if expression[closed[0] + 1] != "(":
        return None
    return name, expression[len(name) : closed[0] + 1], expression[closed[0] + 2 : -1]


def _depths(sql: str) -> Iterator[tuple[int, int]]:
    """Each place, and how many parentheses are open there; a closing one is itself outside."""
    depth = 0
    for at, letter in enumerate(sql):
        depth += (letter == "(") - (letter == ")")
        yield at, depth
