"""Eventmill: a mobile analytics engine, from app event to dashboard, that loses nothing and doubles nothing.

The kernels work as a library, in any service: ``decode`` makes columns of SDK bodies, ``EventTimeBloom`` finds duplicates
(``RotatingBloom``, where ids have no time of their own), ``Sessionizer`` assigns sessions, ``Enricher`` joins dimensions.
"""

from importlib.metadata import version as _version

from eventmill.kernels.bloom import RotatingBloom
from eventmill.kernels.decode import Decoded, decode
from eventmill.kernels.enrich import Enricher
from eventmill.kernels.event_bloom import EventTimeBloom
from eventmill.kernels.sessionize import Sessionizer

__version__ = _version("eventmill")

__all__ = ["Decoded", "Enricher", "EventTimeBloom", "RotatingBloom", "Sessionizer", "__version__", "decode"]
