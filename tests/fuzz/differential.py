"""The decoder beside orjson and its slow Python twin, driven by libFuzzer: verdicts and the values of all columns.

libFuzzer runs within Python: ``LIBFUZZER`` names its driver as a shared library, which must be loaded before the extension
that is measured (compiled with ``-fsanitize=fuzzer-no-link``). All other arguments go to libFuzzer. A difference ends the
process, and libFuzzer writes the input down. Inputs are those of fuzz_decode.cpp.
"""

from __future__ import annotations

import ctypes
import os
import sys
import traceback
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "kernels")]

_DRIVER = ctypes.CDLL(os.environ["LIBFUZZER"], mode=ctypes.RTLD_GLOBAL) if "LIBFUZZER" in os.environ else None

import decode_twin as twin  # noqa: E402
import orjson  # noqa: E402
from inputs import SEPARATOR  # noqa: E402
from test_decode_twin import RECEIVED_AT, assert_same  # noqa: E402

from eventmill._native.decode import Decoder  # noqa: E402
from eventmill.core.errors import BodyError  # noqa: E402

_ENDPOINTS = (None, *twin.TYPES, None)
_SMALL = {"event_bytes_max": 300, "event_name_bytes_max": 12, "depth_max": 5, "age_max_ms": 86_400_000}
#: The twin recurses as json.loads does; deeper bodies are fuzz_decode.cpp's.
_DEPTH_MAX = 100


def is_deep(body: bytes) -> bool:
    """Whether the body may nest too deep for the twin."""
    return body.count(b"{") + body.count(b"[") > _DEPTH_MAX


def check(data: bytes) -> None:
    """Raises AssertionError where decoder, orjson and twin disagree on an input."""
    if not data:
        return
    endpoint = _ENDPOINTS[data[0] & 7]
    parameters = _SMALL if data[0] & 8 else {}
    decoder, expected = Decoder(**parameters), []
    for body in data[1:].split(SEPARATOR)[:8]:
        if is_deep(body):
            continue
        try:
            orjson.loads(body)
        except orjson.JSONDecodeError:
            _refused(decoder, body, endpoint, "is not JSON")
            continue
        try:
            want = twin.decode(body, RECEIVED_AT, endpoint, twin.Limits(**parameters))
        except twin.NotABatch:
            _refused(decoder, body, endpoint, "not a batch")
            continue
        for _ in range(2):
            answer = decoder.append(body, RECEIVED_AT, endpoint)
            assert answer == (len(want.events), len(want.rejects), want.write_key), (answer, body)
            expected.append(want)
    assert_same(decoder, expected)


def _refused(decoder: Decoder, body: bytes, endpoint: str | None, why: str) -> None:
    try:
        answer = decoder.append(body, RECEIVED_AT, endpoint)
    except BodyError as error:
        assert why in str(error), (error, body)
    else:
        raise AssertionError(f"{body!r} was taken: {answer}")


def _run_one(data: object, size: int) -> int:
    try:
        check(ctypes.string_at(data, size))  # type: ignore[arg-type]
    except BaseException:
        traceback.print_exc()
        os.abort()
    return 0


def main() -> int:
    """Hand the process over to libFuzzer."""
    if _DRIVER is None:
        sys.exit("LIBFUZZER names no library; `make soak` runs this")
    callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)(_run_one)
    count = ctypes.c_int(len(sys.argv))
    arguments = (ctypes.c_char_p * (len(sys.argv) + 1))(*(one.encode() for one in sys.argv), None)
    return int(_DRIVER.LLVMFuzzerRunDriver(ctypes.byref(count), ctypes.byref(ctypes.pointer(arguments)), callback))


if __name__ == "__main__":
    sys.exit(main())
