"""Who asks: each named key has a query service of its own, with its project, its limits and its lane."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from eventmill.net.grants import Grant
from eventmill.query.service import QueryService

_OF_QUERIES: Final = ("concurrency_max", "seconds_max", "result_rows_max", "scan_rows_max", "memory_bytes_max")


class Callers:
    """Safe to share between threads. ``whole`` answers whoever has no name, from the events of all projects."""

    def __init__(self, whole: QueryService, grants: Iterable[Grant]) -> None:
        self._whole = whole
        self._grants = {each.name: each for each in grants}
        self._lock = threading.Lock()
        self._made: dict[str, QueryService] = {}

    def grant(self, name: str | None) -> Grant | None:
        """The grant of that name; null for nobody in particular. Raises ``KeyError`` for a name that is not known."""
        return None if name is None else self._grants[name]

    def of(self, name: str | None) -> QueryService:
        """The service that answers this caller. Raises ``KeyError`` for a name that is not known."""
        grant = self.grant(name)
        if grant is None:
            return self._whole
        with self._lock:
            if grant.name not in self._made:
                own = {what: getattr(grant, what) for what in _OF_QUERIES if getattr(grant, what) is not None}
                config = replace(self._whole.config, **own)
                self._made[grant.name] = self._whole.narrowed(config, project=grant.project, caller=grant.name)
            return self._made[grant.name]
