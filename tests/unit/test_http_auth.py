"""Write keys, however they come."""

from __future__ import annotations

import base64

import pytest

from eventmill.core.errors import ConfigError
from eventmill.net.keys import WriteKeys, key_of_header


def basic(text):
    return "Basic " + base64.b64encode(text).decode()


@pytest.mark.parametrize(
    ("header", "key"),
    [
        (None, None),
        ("", ""),
        ("Bearer abc", "abc"),
        ("bearer  abc ", "abc"),
        ("Bearer", ""),
        (basic(b"abc:"), "abc"),
        (basic(b"abc:secret:more"), "abc"),
        (basic(b"abc"), "abc"),
        (basic("schlüssel:".encode()), "schlüssel"),
        ("Bearer " + "schlüssel".encode().decode("latin-1"), "schlüssel"),
        ("Bearer \xff", "\xff"),
        (basic(b"\xff\xfe:"), ""),
        ("Basic ???", ""),
        ("Basic \xe9", ""),
        ("Digest username=abc", ""),
    ],
)
def test_the_key_of_a_header(header, key):
    assert key_of_header(header) == key


def test_only_configured_keys_are_accepted():
    keys = WriteKeys(["one", "schlüssel"])
    assert [keys.accepts(key) for key in ("one", "schlüssel", "onE", "one ", "", "two", None)] == [True] * 2 + [
        False
    ] * 5
    assert not keys.open


def test_without_keys_anything_goes():
    keys = WriteKeys([])
    assert keys.open
    assert keys.accepts(None)
    assert keys.accepts("any")


@pytest.mark.parametrize("empty", ["", " "])
def test_an_empty_key_would_let_anyone_in(empty):
    with pytest.raises(ConfigError, match="empty"):
        WriteKeys(["right", empty])
