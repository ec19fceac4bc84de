"""Every error that a user can meet. Each message says what is wrong and names the cure."""

from __future__ import annotations

import errno
from typing import Final

#: ClickHouse's NOT_ENOUGH_SPACE.
_NO_SPACE_CODE: Final = 243
#: As the C library, and as SQLite, says it: where only the text of an error is left of it.
_NO_SPACE: Final = ("No space left on device", "database or disk is full")


class EventmillError(Exception):
    """Base of all errors that Eventmill raises on purpose; the command line prints it without a traceback."""


class ConfigError(EventmillError):
    """A setting is missing, misspelt or out of range."""


class BodyError(EventmillError, ValueError):
    """A request body is not JSON, or not a batch or an event. ``offset`` is the byte where it broke, or -1."""

    def __init__(self, message: str, offset: int = -1) -> None:
        super().__init__(message)
        self.offset = offset


class FrameError(EventmillError):
    """A frame on the log or a snapshot does not read back as it was written."""


class LogUnavailable(EventmillError):
    """The log cannot take or give frames now; the caller may try again after ``retry_after_s`` seconds."""

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class StateError(EventmillError):
    """State and log do not fit together (a snapshot beyond the log, say): stop, never start afresh in silence."""


class StoreError(EventmillError):
    """A store refused a write or a read. ``code`` is ClickHouse's number for the reason, or 0."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class StoreUnavailable(StoreError):
    """A store on another machine does not answer now; nothing is lost by trying again after ``retry_after_s`` seconds."""

    retry_after_s = 1


class QueryError(EventmillError, ValueError):
    """A query is wrong or not allowed; the message tells what to change."""


class SchemaError(EventmillError):
    """A schema is not valid, refers to what is not there, or cannot be had from where it is kept."""


class DataFolderBusy(EventmillError):
    """Another process holds the data folder."""


def disk_full(error: BaseException) -> bool:
    """Whether it came of a disk, or a quota, that is full: then it passes once there is room."""
    at: BaseException | None = error
    while at is not None:
        if isinstance(at, OSError) and at.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if isinstance(at, StoreError) and at.code == _NO_SPACE_CODE:
            return True
        if any(words in str(at) for words in _NO_SPACE):
            return True
        at = at.__cause__ or at.__context__
    return False
