"""Every error that a user can meet. Each message says what is wrong and names the cure."""

from __future__ import annotations


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
