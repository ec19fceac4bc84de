"""Which instructions the kernels use: the best that the processor has, or what the environment's EVENTMILL_CPU names.

The name is read once, when the kernels are first used; it is there for tests and comparisons, since the results are the same.
"""

from __future__ import annotations

import os
from typing import Final

from eventmill._native import cpu as native
from eventmill.core.errors import ConfigError

#: ``portable`` and what this processor has of ``avx2`` and ``avx512``.
AVAILABLE: Final = native.AVAILABLE
CHOSEN: Final = native.CHOSEN

if native.UNKNOWN:
    raise ConfigError(
        f"EVENTMILL_CPU is {os.environ['EVENTMILL_CPU']!r}; this processor has {', '.join(AVAILABLE)}: name one, or unset it"
    )
