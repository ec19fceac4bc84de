"""Which instructions the kernels use; ``eventmill.kernels.cpu`` is its public face."""

AVAILABLE: tuple[str, ...]
"""The levels that this processor has, the slowest first."""
CHOSEN: str
"""The one in use."""
UNKNOWN: bool
"""Whether the environment names one that is none of these."""
