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


# Without the time of day, which would make every worker name its tests otherwise.
HELLO = gzip.compress(b"hello", mtime=0)
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
        ("gzip", HELLO[:-3], 400),
        ("gzip", HELLO + b"more", 400),
        ("gzip", HELLO * 2, 400),
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


def test_empty_blocks_do_not_buy_time():
    frame_head = b"\x28\xb5\x2f\xfd\x00\x58"
    few, many = (frame_head + b"\x00\x00\x00" * blocks + b"\x01\x00\x00" for blocks in (100, 100_000))
    assert inflate(few, "zstd", 500_000) == b""
    with pytest.raises(InflateError, match="blocks"):
        inflate(many, "zstd", 500_000)


def test_a_zstd_window_has_its_bound():
    parameters = zstandard.ZstdCompressionParameters(window_log=27, compression_level=3, write_content_size=False)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    with pytest.raises(InflateError, match="window") as refused:
        inflate(compressor.compress(b"abc") + compressor.flush(), "zstd", 500_000)
    assert refused.value.status == 413


@pytest.mark.parametrize("place", [-1, -6])
def test_a_wrong_checksum_is_noticed(place):
    for encoding, body in (("gzip", gzip.compress(b"hello")), ("zstd", zstd(b"hello", write_checksum=True))):
        damaged = bytearray(body)
        damaged[place] ^= 1
        with pytest.raises(InflateError):
            inflate(bytes(damaged), encoding, 100)


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=1, max_size=300), st.sampled_from(["gzip", "zstd"]), st.data())
def test_a_damaged_body_is_refused_or_inflates_within_the_cap(plain, encoding, data):
    body = bytearray(gzip.compress(plain) if encoding == "gzip" else zstd(plain))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        outcome = 200 if len(inflate(bytes(body), encoding, 400)) <= 400 else "over the cap"
    except InflateError as refused:
        outcome = refused.status
    assert outcome in (200, 400, 413)
