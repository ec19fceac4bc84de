"""Dimensions in Redis: one hash a user, ``<prefix><user_id>``, with the fields country, segment and tier.

An absent or empty field is null; a user without any field is a stranger. Requests are written and replies read a thousand at
a time on one connection of redis-py, parsed by hiredis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from eventmill.core.config import DimensionsConfig
from eventmill.core.errors import ConfigError, StoreError
from eventmill.core.schema import DIMENSION_NAMES

CHUNK: Final = 1_000
VALUE_BYTES_MAX: Final = 256
#: What one user's look-up gives: the fields, nothing (a stranger), or no sense (another type, not UTF-8, too long).
Fields = tuple[str | None, ...]
Reply = Fields | None | bool
NONSENSE: Final = False
_WANTED: Final = b"".join(b"$%d\r\n%b\r\n" % (len(name), name.encode()) for name in DIMENSION_NAMES)
_WRITTEN: Final = tuple(b"$%d\r\n%b\r\n" % (len(name), name.encode()) for name in DIMENSION_NAMES)


class RedisTable:
    """Raises ``ConfigError`` for a URL that is none or without redis-py, ``StoreError`` when Redis does not answer well.

    ``timeout_s`` is that of connecting and of each read. Messages never name the URL, which may hold a password.
    """

    def __init__(self, config: DimensionsConfig, *, timeout_s: float) -> None:
        try:
            self._pool = redis.ConnectionPool.from_url(
                config.redis, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, protocol=2,
                retry=Retry(NoBackoff(), 0), health_check_interval=0,
            )  # fmt: skip
            self._pool.connection_class(**self._pool.connection_kwargs)
        except (ValueError, TypeError) as error:
            raise ConfigError(
                "dimensions.redis is no URL of Redis; write redis://HOST:PORT/0, rediss:// or unix://"
            ) from error
        self._prefix = config.prefix.encode()

    def ping(self) -> None:
        """Returns when Redis answers."""
        for _ in self._replies([[b"*1\r\n$4\r\nPING\r\n"]]):
            pass

    def ask(self, users: Sequence[bytes], enough: Callable[[], bool] = lambda: False) -> Iterator[list[Reply]]:
        """The replies, a chunk at a time, in order; ends early when ``enough()``."""
        prefix = self._prefix

        def requests() -> Iterator[list[bytes]]:
            for start in range(0, len(users), CHUNK):
                if enough():
                    return
                yield [
                    b"*5\r\n$5\r\nHMGET\r\n$%d\r\n%b%b\r\n%b" % (len(prefix) + len(user), prefix, user, _WANTED)
                    for user in users[start : start + CHUNK]
                ]

        for replies in self._replies(requests()):
            yield [_fields(reply) for reply in replies]

    def load(self, rows: Sequence[tuple[bytes, ...]], ttl_ms: int | None) -> None:
        """Write rows of user_id, country, segment, tier (empty: null), each as a whole, in place of what is there."""
        commands: list[bytes] = []
        for user, *values in rows:
            key = b"$%d\r\n%b%b\r\n" % (len(self._prefix) + len(user), self._prefix, user)
            fields = b"".join(
                name + b"$%d\r\n%b\r\n" % (len(value), value) for name, value in zip(_WRITTEN, values, strict=True)
            )
            after = b"*2\r\n$7\r\nPERSIST\r\n" + key
            if ttl_ms is not None:
                after = b"*3\r\n$7\r\nPEXPIRE\r\n%b$%d\r\n%d\r\n" % (key, len(str(ttl_ms)), ttl_ms)
            # In a transaction, so that no reader finds the user gone between the two.
            commands += [
                b"*1\r\n$5\r\nMULTI\r\n", b"*2\r\n$3\r\nDEL\r\n" + key,
                b"*8\r\n$4\r\nHSET\r\n" + key + fields, after, b"*1\r\n$4\r\nEXEC\r\n",
            ]  # fmt: skip
        for _ in self._replies([commands]):
            pass

    def _replies(self, requests: Any) -> Iterator[list[Any]]:
        try:
            connection: Any = self._pool.get_connection()
            try:
                for chunk in requests:
                    connection.send_packed_command([b"".join(chunk)], check_health=False)
                    yield [_reply(connection) for _ in chunk]
            except BaseException:
                connection.disconnect()  # replies may be on their way
                raise
            finally:
                self._pool.release(connection)
        except (RedisError, OSError) as error:
            raise StoreError(f"Redis does not answer as it should ({_named(error)}); see dimensions.redis") from error

    def close(self) -> None:
        """Close all connections."""
        self._pool.disconnect()


def _reply(connection: Any) -> Any:
    try:
        return connection.read_response(disable_decoding=True)
    except ResponseError as error:
        if str(error).startswith("WRONGTYPE"):
            return NONSENSE
        raise


def _named(error: BaseException) -> str:
    """The kind of error, and the first word of what Redis says (LOADING, NOAUTH, MOVED, …)."""
    first = str(error).split(" ", 1)[0] if isinstance(error, ResponseError) else ""
    return f"{type(error).__name__} {first}".strip()


def _fields(reply: Any) -> Reply:
    if reply is NONSENSE:
        return NONSENSE
    if reply == [None] * len(DIMENSION_NAMES):
        return None
    try:
        if max(len(value or b"") for value in reply) > VALUE_BYTES_MAX:
            return NONSENSE
        return tuple(value.decode() if value else None for value in reply)
    except UnicodeDecodeError:
        return NONSENSE
