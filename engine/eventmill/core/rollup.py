"""What the roll-ups keep: written by the real-time store, read by the query service."""

from __future__ import annotations

from typing import Final

#: The aggregate function of every distinct count, over raw rows, over the roll-up and over the lake alike, so that
#: its states merge and the three agree. Exact up to about two thousand values, then within 1 % as a rule; a state has
#: at most 48 KB however many values there are.
DISTINCT: Final = "uniqCombined64"
DISTINCT_PRECISION: Final = 16

#: Of the quantiles' sketch (DDSketch): its bins are one percent wide. The answer is within half a percent of the value at
#: that rank, for values below 1 within one and a half (ClickHouse rounds their bins towards zero). The levels are a part of
#: the state's type, so all states have these.
ACCURACY: Final = 0.005
LEVELS: Final = (0.5, 0.95, 0.99)
_SKETCH: Final = ", ".join(map(str, (ACCURACY, *LEVELS)))

#: The roll-ups' dimensions beside the time.
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


def quantiles_state(expression: str) -> str:
    """SQL for the state of the quantiles of ``expression`` (Nullable(Float64)) at all ``LEVELS``."""
    return f"quantilesDDState({_SKETCH})({expression})"


def quantiles_merge(expression: str) -> str:
    """SQL for the state that merges the states in ``expression``."""
    return f"quantilesDDMergeState({_SKETCH})({expression})"


def quantiles_type() -> str:
    """The column type of such a state."""
    return f"AggregateFunction(quantilesDD({_SKETCH}), Nullable(Float64))"


def quantile_of(expression: str, level: float, over: str = "") -> str:
    """SQL for one of the ``LEVELS`` of the merged states in ``expression``, null where there was no value."""
    found = f"quantilesDDMerge({_SKETCH})({expression}){over}[{LEVELS.index(level) + 1}]"
    return f"if(isNaN({found}), NULL, {found})"


#: What is counted distinctly, and the type that it has in every state.
DISTINCT_TYPES: Final = {"devices": "String", "users": "Nullable(String)", "sessions": "Int64"}


def restored(name: str) -> str:
    """SQL for the state that a column of bytes (of the lake's aggregates) holds."""
    return f"CAST(assumeNotNull({name}), '{distinct_type(DISTINCT_TYPES[name])}')"
