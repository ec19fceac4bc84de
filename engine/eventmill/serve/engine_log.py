"""The log, as the configuration says."""

from __future__ import annotations

from typing import Final

from eventmill.core.config import Config
from eventmill.core.log import Log
from eventmill.log.local import LocalLog
from eventmill.serve.folder import existing

#: Whoever replays dead letters opens the log under this name, so that one at a time does.
REPLAY: Final = "replay"


def on_kafka(config: Config) -> bool:
    """Whether the log is Apache Kafka, which any number of processes on any machines share."""
    return bool(config.kafka.bootstrap)


def open_existing(config: Config, *, name: str | None = None) -> Log:
    """The log, which must be there already: embedded, in the data folder. Raises ``ConfigError`` where it is not."""
    if not on_kafka(config):
        existing(config.data)
    return open_log(config, name=name)


def open_log(config: Config, *, name: str | None = None) -> Log:
    """The log. On Kafka whoever does more than append, or commit offsets, needs a ``name`` that nobody else has."""
    if on_kafka(config):
        # librdkafka is loaded only where it is used.
        from eventmill.log.kafka.log import KafkaLog

        return KafkaLog(config, name=name)
    return LocalLog(
        config.log_dir,
        prefix=config.log.prefix,
        size_bytes_max=config.log.size_bytes_max,
        backlog_events_max=config.log.backlog_events_max,
    )
