"""Inflating: exact for good bodies, bounded for bombs, clear for the rest."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from eventmill.net.inflate import InflateError, inflate


def zstd(data, **options):
    return zstandard.ZstdCompressor(**options).compress(data)


def streamed(data):
    compressor = zstandard.ZstdCompressor().compressobj()
    return compressor.compress(data) + compressor.flush()


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=2_000), st.integers(1, 90))
def test_every_encoding_gives_the_plain_body(data, times):
    plain = data * times
    cap = max(len(plain), 1)
    for encoding, body in (
        ("", plain),
        ("identity", plain),
        ("gzip", gzip.compress(plain)),
        ("GZIP", gzip.compress(plain, 1)),
        ("zstd", zstd(plain)),
        ("zstd", streamed(plain)),
        ("zstd", zstd(plain, write_checksum=True, level=10)),
    ):
        assert inflate(body, encoding, cap) == plain


BOMB = b"\0" * (64 << 20)


@pytest.mark.parametrize(
    ("encoding", "body"), [("gzip", zlib.compress(BOMB, 9, 31)), ("zstd", zstd(BOMB)), ("zstd", streamed(BOMB))]
)
def test_a_bomb_is_refused_without_inflating_it(encoding, body):
    tracemalloc.start()
    with pytest.raises(InflateError) as refused:
        inflate(body, encoding, 500_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refused.value.status == 413
    assert peak < 4 << 20


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        ("br", b"x", 415),
        ("gzip, gzip", b"x", 415),
        ("gzip", b"", 400),
        ("gzip", b"plain", 400),
        ("gzip", gzip.compress(b"hello")[:-3], 400),
        ("gzip", gzip.compress(b"hello") + b"more", 400),
        ("gzip", gzip.compress(b"hello") * 2, 400),
        ("zstd", b"", 400),
        ("zstd", b"plain", 400),
        ("zstd", zstd(b"hello")[:-1], 400),
        ("zstd", zstd(b"hello") * 2, 400),
        ("zstd", zstd(b"hello") + b"\x50\x2a\x4d\x18\0\0\0\0", 400),
        ("identity", b"x" * 11, 413),
    ],
)
def test_what_cannot_be_inflated_is_refused(encoding, body, status):
    with pytest.raises(InflateError) as refused:
        inflate(body, encoding, 10)
    assert refused.value.status == status
