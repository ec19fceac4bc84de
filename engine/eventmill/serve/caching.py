"""The cache of answers, beside the metrics."""

from __future__ import annotations

from eventmill.observe import metrics


class Counted:
    """Tells the metrics what the cache of answers does."""

    def asked(self, hit: bool) -> None:
        """See ``query.cache.Told``."""
        metrics.CACHE_LOOKUPS.labels("hit" if hit else "miss").inc()

    def holds(self, size_bytes: int, evicted: int) -> None:
        """See ``query.cache.Told``."""
        metrics.CACHE_BYTES.set(size_bytes)
        metrics.CACHE_EVICTIONS.inc(evicted)
