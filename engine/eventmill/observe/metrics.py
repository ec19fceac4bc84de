"""Prometheus metrics, shared by all processes of one ``serve`` through PROMETHEUS_MULTIPROC_DIR.

Labels are bounded: endpoints and reasons are closed sets; event names and ids never become labels.
"""

from __future__ import annotations

import functools
import os
from typing import Final

from prometheus_client import REGISTRY as PROCESS_REGISTRY
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

REQUESTS: Final = Counter("eventmill_requests", "Requests answered", ["endpoint", "status"])
ACCEPTED: Final = Counter("eventmill_events_accepted", "Events made durable on the log")
REJECTED: Final = Counter("eventmill_events_rejected", "Events made dead letters at ingest", ["reason"])
COMMIT_SECONDS: Final = Histogram(
    "eventmill_commit_seconds",
    "Duration of a group commit",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2),
)
COMMIT_EVENTS: Final = Histogram(
    "eventmill_commit_events", "Events in a group commit", buckets=(1, 10, 100, 1_000, 10_000, 100_000)
)
PENDING_BYTES: Final = Gauge(
    "eventmill_pending_bytes", "Decoded bytes that wait for their commit", multiprocess_mode="livesum"
)
QUERY_SECONDS: Final = Histogram(
    "eventmill_query_seconds",
    "Duration of an answer to a question, waiting for its turn included",
    ["kind"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
STORED: Final = Counter("eventmill_events_stored", "Events stored", ["store"])
RETIRED: Final = Counter(
    "eventmill_rows_retired", "Rows that retention has taken, or moved to the cold tier", ["store", "rule"]
)
PROCESSED: Final = Counter("eventmill_events_processed", "Raw events taken by the processor")
JUDGED: Final = Counter("eventmill_suspects_judged", "Suspects looked up exactly")
SCHEMAS_REACHED: Final = Gauge(
    "eventmill_schemas_reached", "1 while the source of schemas answers, else 0", multiprocess_mode="mostrecent"
)
SCHEMA_UNKNOWN: Final = Gauge(
    "eventmill_events_schema_unknown",
    "Events accepted and flagged since the start because their schema was not known",
    multiprocess_mode="mostrecent",
)
DIMENSION_HITS: Final = Counter(
    "eventmill_dimension_hits", "Events whose user's dimensions came from the cache before Redis"
)
DIMENSION_MISSES: Final = Counter("eventmill_dimension_misses", "Events whose user was not in the cache before Redis")
DIMENSION_UNKNOWN: Final = Counter(
    "eventmill_dimension_unknown", "Events flagged because their user's dimensions could not be had from Redis"
)
DIMENSION_LOOKUPS: Final = Counter("eventmill_dimension_lookups", "Users asked for in Redis")
DIMENSION_ERRORS: Final = Counter(
    "eventmill_dimension_errors",
    "Look-ups that Redis did not answer in time, and users whose key makes no sense",
    ["kind"],
)
DIMENSION_SECONDS: Final = Histogram(
    "eventmill_dimension_lookup_seconds",
    "Duration of a look-up of one batch's users in Redis",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1),
)
DIMENSION_BREAKER: Final = Gauge(
    "eventmill_dimension_breaker",
    "0 while Redis is asked, 1 while it is probed, 2 while it is left alone",
    multiprocess_mode="mostrecent",
)
CACHE_LOOKUPS: Final = Counter("eventmill_query_cache_lookups", "Questions looked up in the cache", ["found"])
CACHE_EVICTIONS: Final = Counter("eventmill_query_cache_evictions", "Answers that had to go for newer ones")
CACHE_BYTES: Final = Gauge(
    "eventmill_query_cache_bytes", "What the answers in the cache take", multiprocess_mode="mostrecent"
)
LAG: Final = Gauge(
    "eventmill_lag_events", "Events a consumer has still to take", ["group"], multiprocess_mode="mostrecent"
)
LAG_SECONDS: Final = Gauge(
    "eventmill_lag_seconds", "Age of the oldest frame a consumer has still to take", ["group"],
    multiprocess_mode="mostrecent",
)  # fmt: skip


@functools.lru_cache(maxsize=1_024)
def answered(endpoint: str, status: int) -> Counter:
    """The counter of one endpoint's answers; ``endpoint`` is one of a closed set. Looking it up costs more than counting."""
    child: Counter = REQUESTS.labels(endpoint, str(status))
    return child


def render() -> bytes:
    """All processes' metrics as Prometheus text."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(PROCESS_REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
