"""Request bodies as sent, to plain bytes, against a cap: a small body must not become a large one in memory."""

from __future__ import annotations

import threading
from typing import Final

import zstandard
from isal import isal_zlib
from isal.isal_zlib import error as IsalError  # noqa: N812

_STEP: Final = 65_536
_GZIP_WBITS: Final = 31
_WINDOW_BYTES_MAX: Final = 8 << 20
_BLOCKS_MAX: Final = 8_192
_SKIPPABLE: Final = range(0x184D2A50, 0x184D2A60)
_of_thread = threading.local()


class InflateError(ValueError):
    """The body cannot be inflated; ``status`` is the HTTP answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def inflate(body: bytes, encoding: str, cap: int) -> bytes:
    """The plain body. ``encoding``: identity (or empty), gzip, zstd; ``cap``: the most bytes that may come out.

    Raises ``InflateError``: 400 damaged or followed by something, 413 over the cap, 415 another encoding.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        plain = body
    elif name in ("gzip", "x-gzip"):
        plain = _gunzip(body, cap)
    elif name == "zstd":
        plain = _unzstd(body, cap)
    else:
        raise InflateError(415, f"Content-Encoding {encoding!r} is not understood; send identity, gzip or zstd")
    if len(plain) > cap:
        raise _too_large(cap)
    return plain


def _too_large(cap: int) -> InflateError:
    return InflateError(413, f"the inflated body exceeds {cap:,} bytes (http.request_bytes_max); send smaller batches")


def _gunzip(body: bytes, cap: int) -> bytes:
    stream = isal_zlib.decompressobj(_GZIP_WBITS)
    parts, total, rest = [], 0, body
    try:
        while not stream.eof:
            part = stream.decompress(rest, _STEP)
            rest = stream.unconsumed_tail
            total += len(part)
            if total > cap:
                raise _too_large(cap)
            if not part and not stream.eof:
                raise InflateError(400, "the gzip body is truncated")
            parts.append(part)
    except IsalError as error:  # type: ignore[misc]
        raise InflateError(400, f"the body is not gzip as Content-Encoding says: {error}") from error
    if stream.unused_data:
        raise InflateError(400, "something follows the gzip body; send one member")
    return b"".join(parts)


def _unzstd(body: bytes, cap: int) -> bytes:
    try:
        parameters = zstandard.get_frame_parameters(body)
        if parameters.window_size > _WINDOW_BYTES_MAX:
            raise InflateError(
                413, f"the zstd window exceeds {_WINDOW_BYTES_MAX:,} bytes; compress with level 19 or lower"
            )
        if _frame_bytes(body, parameters.has_checksum) != len(body):
            raise InflateError(400, "the zstd body is truncated, or something follows its frame; send one frame")
        if parameters.content_size > cap and parameters.content_size != zstandard.CONTENTSIZE_UNKNOWN:
            raise _too_large(cap)
        decompressor = _decompressor()
        if parameters.content_size != zstandard.CONTENTSIZE_UNKNOWN:
            return decompressor.decompress(body)
        parts, total = [], 0
        with decompressor.stream_reader(body) as reader:
            while part := reader.read(_STEP):
                total += len(part)
                if total > cap:
                    raise _too_large(cap)
                parts.append(part)
    except zstandard.ZstdError as error:
        raise InflateError(400, f"the body is not zstd as Content-Encoding says: {error}") from error
    return b"".join(parts)


def _decompressor() -> zstandard.ZstdDecompressor:
    """This thread's; to make one takes as long as to inflate 16 KiB."""
    found: zstandard.ZstdDecompressor | None = getattr(_of_thread, "zstd", None)
    if found is None:
        found = _of_thread.zstd = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES_MAX)
    return found


def _frame_bytes(body: bytes, checksum: bool) -> int:
    """Length of the first zstd frame by its block headers (RFC 8878, 3.1.1), so that nothing hides behind it; -1 if cut."""
    if int.from_bytes(body[:4], "little") in _SKIPPABLE:
        return -1
    at = zstandard.frame_header_size(body)
    last, blocks = False, 0
    while not last:
        blocks += 1
        if blocks > _BLOCKS_MAX:
            raise InflateError(400, f"the zstd body has over {_BLOCKS_MAX:,} blocks; flush the compressor less often")
        if at + 3 > len(body):
            return -1
        header = int.from_bytes(body[at : at + 3], "little")
        last, kind, size = bool(header & 1), header >> 1 & 3, header >> 3
        at += 3 + (1 if kind == 1 else size)
    return at + (4 if checksum else 0)
