"""The data folder's log, as its configuration says."""

from __future__ import annotations

from eventmill.core.config import Config
from eventmill.log.local import LocalLog


def open_log(config: Config) -> LocalLog:
    """The data folder's log."""
    return LocalLog(
        config.log_dir,
        prefix=config.log.prefix,
        size_bytes_max=config.log.size_bytes_max,
        backlog_events_max=config.log.backlog_events_max,
    )
