"""What the minute roll-up keeps: written by the real-time store, read by the query service."""

from __future__ import annotations

from typing import Final

#: The aggregate function of every distinct count, over raw rows, over the roll-up and over the lake alike, so that
#: its states merge and the three agree. Exact up to about two thousand values, then within 1 % as a rule; a state has
#: at most 48 KB however many values there are.
DISTINCT: Final = "uniqCombined64"
DISTINCT_PRECISION: Final = 16

#: The roll-up's dimensions beside the minute.
DIMENSIONS: Final = ("event", "platform")


def distinct_state(expression: str) -> str:
    """SQL for the state of the distinct count of ``expression``."""
    return f"{DISTINCT}State({DISTINCT_PRECISION})({expression})"


def distinct_merge(expression: str) -> str:
    """SQL for the state that merges the states in ``expression``."""
    return f"{DISTINCT}MergeState({DISTINCT_PRECISION})({expression})"


def distinct_type(column_type: str) -> str:
    """The column type of such a state."""
    return f"AggregateFunction({DISTINCT}({DISTINCT_PRECISION}), {column_type})"


#: What is counted distinctly, and the type that it has in every state.
DISTINCT_TYPES: Final = {"devices": "String", "users": "Nullable(String)", "sessions": "Int64"}


def restored(name: str) -> str:
    """SQL for the state that a column of bytes (of the lake's aggregates) holds."""
    return f"CAST(assumeNotNull({name}), '{distinct_type(DISTINCT_TYPES[name])}')"
