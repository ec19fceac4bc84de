"""Which store answers for which stretch of time: a pure function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from eventmill.core.lakefile import LakeFile
from eventmill.core.renames import AS_STORED, Renames
from eventmill.core.retention import LakeView
from eventmill.core.typed import NOTHING, Typed


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of event time in ms since the epoch: ``start`` belongs to it, ``end`` does not."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Route:
    """Each bucket has one store: those before ``boundary`` the lake, the others the real-time store.

    ``boundary`` is null when there is no lake to draw one. ``typed``: the properties that have columns in the real-time store.
    ``files`` are those of the lake's snapshot, null where nobody knows them; ``is_rolled_up`` tells which of them need not be
    read for what roll-ups have. ``view`` has the aggregates that stand in for retired events. ``renames``: the events that are
    called otherwise than they are stored.
    """

    lake: Span | None
    realtime: Span | None
    boundary: int | None
    typed: Typed = NOTHING
    files: tuple[LakeFile, ...] | None = None
    is_rolled_up: Callable[[LakeFile], bool] = lambda _: False
    view: LakeView | None = None
    renames: Renames = AS_STORED

    @property
    def stores(self) -> list[str]:
        """The stores that are asked."""
        return [name for name, span in (("realtime", self.realtime), ("lake", self.lake)) if span is not None]


def route(span: Span, interval_ms: int, *, lake_exists: bool, watermark: int | None, now: int, window_ms: int) -> Route:
    """Divide ``span`` between the stores.

    The real-time store answers for the last ``window_ms``; further back too, where the lake has not received everything
    yet (``watermark``: the newest ``received_at`` in it; null = unknown). The boundary is put back to its bucket's start.
    """
    if not lake_exists:
        return Route(None, span, None)
    limit = now - window_ms if watermark is None else min(now - window_ms, watermark)
    boundary = max(limit, 0) // interval_ms * interval_ms
    if boundary <= span.start:
        return Route(None, span, boundary)
    if boundary >= span.end:
        return Route(span, None, boundary)
    return Route(Span(span.start, boundary), Span(boundary, span.end), boundary)
