"""The kernels as Python sees them: anything that exports the Arrow C data interface in, pyarrow objects out."""

from eventmill.kernels.cpu import AVAILABLE, CHOSEN

__all__ = ["AVAILABLE", "CHOSEN"]
