"""The decoder's kernel; ``eventmill.kernels.decode`` is its public face."""

import pyarrow as pa

class Decoder:
    """Collects the events of many request bodies, and gives them as one batch. One thread at a time.

    ``event_bytes_max``: JSON bytes of one event. ``event_name_bytes_max``: bytes of an event's name. ``depth_max``: open
    containers within one event, itself included (1 to 1000). An event beyond these limits is a reject. ``age_max_ms``: an
    event further behind its arrival gets the time of its arrival, flagged.
    """

    def __init__(
        self,
        *,
        event_bytes_max: int = 32768,
        event_name_bytes_max: int = 256,
        depth_max: int = 64,
        age_max_ms: int = 63_072_000_000,
    ) -> None: ...
    def append(
        self,
        body: bytes | bytearray | memoryview,
        received_at_ms: int,
        type: str | None = None,  # noqa: A002
    ) -> tuple[int, int, str | None]:
        """Append the events of one body; gives (accepted, rejected, the body's ``writeKey``). Releases the GIL.

        ``received_at_ms``: ms since the epoch. ``type`` None: the body is a batch, or one event that says its type; else
        the body is one event of that type. Raises ``BodyError`` when the body is not JSON or no batch, and
        ``EventmillError`` when a column would pass 1 GiB; nothing of the body is kept then.
        """
    def salt(self, salt: int) -> None:
        """Derive the ids of events without id and time from ``salt`` (64 bits), and from how many there were since.

        The same bodies after the same salt get the same ids; without one they are random.
        """
    def rollback(self) -> None:
        """Take back what the last ``append`` added."""
    @property
    def rows(self) -> int:
        """Events since the last ``finish``."""
    @property
    def reject_rows(self) -> int:
        """Rejected events since the last ``finish``."""
    @property
    def nbytes(self) -> int:
        """Bytes of the columns."""
    def finish(self) -> tuple[pa.RecordBatch, pa.RecordBatch]:
        """Everything appended: a batch of ``core.schema.RAW`` and one of ``REJECT``, without a copy.

        The decoder is empty then, and can be used again.
        """

def parse_timestamp(text: str | bytes) -> int | None:
    """Milliseconds since the epoch, rounded down, of a timestamp as SDKs spell it (``csrc/timestamp.h`` says how), or None."""
