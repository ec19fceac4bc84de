"""Configuration: one TOML file, every key also as ``EVENTMILL_SECTION__KEY`` in the environment.

The dataclasses below are the reference: a field's name is its key, its default the default. Durations are spelled
``30m``, ``24h``; sizes are bytes. The environment wins over the file, the command line over both.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

from eventmill.core.clock import parse_duration_ms
from eventmill.core.errors import ConfigError
from eventmill.core.renames import AS_STORED, Renames

ENV_PREFIX = "EVENTMILL_"


@dataclass(frozen=True, slots=True)
class HttpConfig:
    """Limits of the HTTP server."""

    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    request_bytes_max: int = 500_000
    event_bytes_max: int = 32_768
    header_bytes_max: int = 16_384
    headers_max: int = 64
    connections_max: int = 10_000
    request_deadline: str = "30s"
    idle_timeout: str = "75s"
    pipelined_max: int = 32
    cors_origins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class IngestConfig:
    """What is accepted, and how it is grouped into frames."""

    write_keys: tuple[str, ...] = ()
    event_names_max: int = 1_000
    event_name_bytes_max: int = 256
    depth_max: int = 64
    age_max: str = "730d"
    commit_events_max: int = 50_000
    commit_interval: str = "5ms"
    frame_events_min: int = 16_384
    pending_bytes_max: int = 64_000_000


@dataclass(frozen=True, slots=True)
class LogConfig:
    """The log: retention of its topics, and how much may wait in it."""

    prefix: str = "eventmill"
    retention: str = "72h"
    dead_retention: str = "30d"
    size_bytes_max: int = 50_000_000_000
    backlog_events_max: int = 5_000_000


@dataclass(frozen=True, slots=True)
class DeadConfig:
    """Dead letters: the members whose values they do not keep (``properties.email``, ``context.ip``)."""

    redact: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KafkaConfig:
    """Apache Kafka as the log, once ``bootstrap`` names brokers; ``properties`` are librdkafka's (``name=value``)."""

    bootstrap: tuple[str, ...] = ()
    partitions: int = 12
    replication: int = 3
    min_insync: int = 2
    instance: str = ""
    session_timeout: str = "10s"
    transaction_timeout: str = "15s"
    delivery_timeout: str = "15s"
    mirror: str = ""
    properties: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DedupConfig:
    """The Bloom filter: ``capacity`` ids within ``window`` at the busiest rate, most of them not over ``lateness`` old."""

    capacity: int = 40_000_000
    fpr: float = 0.001
    window: str = "24h"
    slice: str = "5m"
    lateness: str = "6h"
    late_share: float = 0.1


@dataclass(frozen=True, slots=True)
class ProcessConfig:
    """The processor."""

    batch_events_max: int = 65_536
    batch_interval: str = "50ms"
    snapshot_interval_events: int = 2_000_000
    snapshots: str = ""
    session_gap: str = "30m"
    lateness: str = "72h"
    blocked_events: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DimensionsConfig:
    """Users' country, segment and tier: from Redis if one is named, else from a file, else none."""

    file: str = ""
    redis: str = ""
    prefix: str = "eventmill:user:"
    ttl: str = "5m"
    negative_ttl: str = "1m"
    entries_max: int = 2_000_000
    timeout: str = "500ms"
    slow: str = "50ms"
    breaker_errors: int = 3
    breaker_pause: str = "1s"


@dataclass(frozen=True, slots=True)
class SchemasConfig:
    """Where schemas come from: a registry if one is named, else a folder (by default ``schemas`` in the data folder)."""

    folder: str = ""
    registry: str = ""
    subject: str = "{event}"
    refresh_interval: str = "10s"


@dataclass(frozen=True, slots=True)
class RealtimeConfig:
    """The real-time store: in the data folder, or on the ClickHouse server that ``url`` names, perhaps one of ``cluster``."""

    url: str = field(default="", repr=False)
    cluster: str = ""
    batch_events_max: int = 200_000
    batch_interval: str = "500ms"
    window: str = "24h"


@dataclass(frozen=True, slots=True)
class LakeConfig:
    """The lake: in the data folder, or in the bucket that ``warehouse`` names; the catalog there too, or at its own URL."""

    batch_events_max: int = 300_000
    batch_interval: str = "3s"
    partitions_max: int = 1_000
    compact_interval: str = "1h"
    compact_memory_bytes_max: int = 1_000_000_000
    warehouse: str = ""
    endpoint: str = ""
    region: str = ""
    access_key_id: str = field(default="", repr=False)
    secret_access_key: str = field(default="", repr=False)
    catalog: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class RetentionConfig:
    """How long what is kept: ``raw`` events in the lake and in ``realtime``, ``aggregates`` in both stores.

    Events named in ``downsample_events``, or that come more often than ``downsample_per_minute`` over a day (0: none), are kept
    as aggregates only after ``downsample_after``. Files older than ``cold_after`` go to the cold tier, to ``cold_folder`` if
    named.
    """

    interval: str = "1d"
    raw: str = "90d"
    aggregates: str = "730d"
    realtime: str = "5d"
    downsample_after: str = "7d"
    downsample_events: tuple[str, ...] = ()
    downsample_per_minute: int = 0
    cold_after: str = "30d"
    cold_folder: str = ""


@dataclass(frozen=True, slots=True)
class QueryConfig:
    """Limits of the query service, and the events that are called otherwise now (``"old name" = "new name"``)."""

    seconds_max: int = 30
    result_rows_max: int = 100_000
    scan_rows_max: int = 1_000_000_000
    memory_bytes_max: int = 4_000_000_000
    concurrency_max: int = 4
    cache_bytes_max: int = 256_000_000
    slow: str = "5s"
    renames: Renames = AS_STORED


@dataclass(frozen=True, slots=True)
class TrinoConfig:
    """Trino as the engine that reads the lake for questions, once ``url`` names one; ``table`` is the lake's name there."""

    url: str = ""
    table: str = "iceberg.eventmill.events"
    user: str = "eventmill"
    password: str = field(default="", repr=False)
    rows_max: int = 2_000_000


@dataclass(frozen=True, slots=True)
class AccessConfig:
    """Who may ask (``read_keys``), and who may change, too (``admin_keys``); as they are, or as ``sha256:HEX``.

    ``keys`` are those with a name, scopes, a project and limits of their own (see ``net.grants``).
    """

    read_keys: tuple[str, ...] = ()
    admin_keys: tuple[str, ...] = ()
    keys: tuple[str, ...] = field(default=(), repr=False)
    requests_per_minute: int = 1_200


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration."""

    data: Path = Path("eventmill-data")
    http: HttpConfig = field(default_factory=HttpConfig)
    ingest: IngestConfig = field(default_factory=IngestConfig)
    log: LogConfig = field(default_factory=LogConfig)
    dead: DeadConfig = field(default_factory=DeadConfig)
    kafka: KafkaConfig = field(default_factory=KafkaConfig)
    dedup: DedupConfig = field(default_factory=DedupConfig)
    process: ProcessConfig = field(default_factory=ProcessConfig)
    dimensions: DimensionsConfig = field(default_factory=DimensionsConfig)
    schemas: SchemasConfig = field(default_factory=SchemasConfig)
    realtime: RealtimeConfig = field(default_factory=RealtimeConfig)
    lake: LakeConfig = field(default_factory=LakeConfig)
    retention: RetentionConfig = field(default_factory=RetentionConfig)
    query: QueryConfig = field(default_factory=QueryConfig)
    trino: TrinoConfig = field(default_factory=TrinoConfig)
    access: AccessConfig = field(default_factory=AccessConfig)

    @property
    def log_dir(self) -> Path:
        """Where the embedded log lives."""
        return self.data / "log"

    @property
    def state_dir(self) -> Path:
        """Where snapshots live."""
        return self.data / "state"

    @property
    def realtime_dir(self) -> Path:
        """Where chdb lives."""
        return self.data / "realtime"

    @property
    def lake_dir(self) -> Path:
        """Warehouse and catalog of the lake."""
        return self.data / "lake"


_DURATIONS = {
    "age_max",
    "aggregates",
    "batch_interval",
    "breaker_pause",
    "cold_after",
    "commit_interval",
    "compact_interval",
    "dead_retention",
    "delivery_timeout",
    "downsample_after",
    "idle_timeout",
    "interval",
    "lateness",
    "negative_ttl",
    "raw",
    "realtime",
    "refresh_interval",
    "request_deadline",
    "retention",
    "session_gap",
    "session_timeout",
    "slice",
    "slow",
    "timeout",
    "transaction_timeout",
    "ttl",
    "window",
}

#: Where 0 means something: any port, no limit.
_ZERO = {"port", "downsample_per_minute"}


def load(
    path: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Config:
    """The configuration from a TOML file, the environment and ``overrides`` (``{"http.port": 0, "data": path}``).

    Raises ``ConfigError`` naming the key, what it takes, and where it came from.
    """
    values: dict[str, dict[str, Any]] = {}
    if path is not None:
        _merge_file(values, path)
    _merge_environment(values, os.environ if environ is None else environ)
    data = values.pop("", {}).get("data", "eventmill-data")
    for key, value in (overrides or {}).items():
        if value is None:
            continue
        if key == "data":
            data = value
            continue
        section, _, name = key.partition(".")
        values.setdefault(section, {})[name] = value
    sections = {f.name: f.default_factory for f in fields(Config) if f.name != "data"}
    built: dict[str, Any] = {}
    for section, given in values.items():
        if section not in sections:
            raise ConfigError(f"there is no section [{section}]; the sections are {', '.join(sections)}")
        built[section] = _section(section, sections[section], given)
    return Config(data=Path(data).expanduser().absolute(), **built)


def to_environ(config: Config) -> dict[str, str]:
    """The whole configuration as environment variables, for a child process that ``load``s it again."""
    environ = {f"{ENV_PREFIX}DATA": str(config.data)}
    for section in fields(config):
        if section.name == "data":
            continue
        values = getattr(config, section.name)
        for key in fields(values):
            value = getattr(values, key.name)
            text = ",".join(value) if isinstance(value, tuple) else str(value)
            environ[f"{ENV_PREFIX}{section.name}__{key.name}".upper()] = text
    return environ


def _merge_file(values: dict[str, dict[str, Any]], path: Path) -> None:
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    for section, given in tree.items():
        if isinstance(given, dict):
            values.setdefault(section, {}).update(_flat(given) if section == "access" else given)
        elif section == "data":
            values.setdefault("", {})["data"] = given
        else:
            raise ConfigError(f"{path}: {section!r} stands outside a section; only 'data' may")


def _flat(access: Mapping[str, Any]) -> dict[str, Any]:
    """The section with each table ``[access.keys.NAME]`` as one line, as the environment spells it."""
    keys = access.get("keys")
    if not isinstance(keys, dict):
        return dict(access)
    lines = []
    for name, given in keys.items():
        if not isinstance(given, dict):
            raise ConfigError(
                f"access.keys.{name} must be a table like [access.keys.{name}] with key, project and scopes"
            )
        spelt = {what: "+".join(map(str, value)) if isinstance(value, list) else value for what, value in given.items()}
        lines.append(" ".join([name, *(f"{what}={value}" for what, value in spelt.items())]))
        if len(lines[-1].split()) != 1 + len(given) or "," in lines[-1]:
            raise ConfigError(f"access.keys.{name}: values have no blanks and no commas, and are not empty")
    return {**access, "keys": lines}


def _merge_environment(values: dict[str, dict[str, Any]], environ: Mapping[str, str]) -> None:
    for name, value in environ.items():
        if not name.startswith(ENV_PREFIX):
            continue
        section, separator, key = name.removeprefix(ENV_PREFIX).lower().partition("__")
        if separator:
            values.setdefault(section, {})[key] = value
        elif section == "data":
            values.setdefault("", {})["data"] = value


def _section(section: str, kind: Any, given: Mapping[str, Any]) -> Any:
    types = get_type_hints(kind)
    unknown = sorted(set(given) - set(types))
    if unknown:
        raise ConfigError(f"[{section}] has no key {unknown[0]!r}; its keys are {', '.join(types)}")
    return kind(**{name: _value(f"{section}.{name}", name, types[name], value) for name, value in given.items()})


def _value(key: str, name: str, kind: Any, value: Any) -> Any:
    try:
        if name in _DURATIONS:
            parse_duration_ms(value)
            return str(value)
        if kind is int or kind is float:
            if isinstance(value, bool):
                raise ValueError("a number is needed")
            number = kind(str(value).replace("_", ""))
            if number < 0 or (number == 0 and name not in _ZERO):
                raise ValueError("it must be above zero")
            return number
        if kind is Renames:
            return Renames.parse(value)
        if kind is str:
            if not isinstance(value, str):
                raise ValueError("a string is needed")
            return value
        return (
            tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else tuple(value)
        )
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{key} = {value!r} does not fit: {error}") from error
