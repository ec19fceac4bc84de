"""Personal data in dead letters and log lines: what is named is gone, everything else stays byte for byte."""

from __future__ import annotations

import json
import logging
import sys

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventmill.core.errors import ConfigError
from eventmill.core.redact import REDACTED, LineFormatter, Redaction, line
from eventmill.core.schema import DEAD

NAMES = ("email", "ip", "properties", "a.b", "é", 'q"uote')
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=20,
)
PATHS = st.lists(
    st.lists(st.sampled_from(("email", "ip", "properties", "é", "*")), min_size=2, max_size=4).map(".".join), max_size=3
)


def slow(value, paths):
    """The same by taking the value apart and putting it together."""
    if isinstance(value, list):
        return [slow(each, paths) for each in value]
    if not isinstance(value, dict):
        return value
    found = {}
    for name, inner in value.items():
        below = [path[1:] for path in paths if path[0] in (name, "*")]
        found[name] = REDACTED if [] in below else slow(inner, below)
    return found


@given(VALUES, PATHS, st.booleans(), st.sampled_from([None, 2]))
def test_what_is_named_is_gone_and_all_else_is_as_it_was(value, paths, ascii_only, indent):
    payload = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")
    redacted = Redaction(paths).payload(payload)
    wanted = slow(value, [path.split(".") for path in paths])
    assert json.loads(redacted.decode("utf-8", "surrogatepass")) == wanted
    if wanted == value:
        assert redacted == payload


def test_numbers_blanks_and_doubled_members_keep_their_bytes():
    payload = (
        b' {"n": 1e400, "big":18446744073709551616 ,"email" : "x",\n"context":{"ip":"1.2.3.4","ip":[1]} , "z":1.50}'
    )
    assert Redaction(["context.ip"]).payload(payload) == (
        b' {"n": 1e400, "big":18446744073709551616 ,"email" : "x",\n'
        b'"context":{"ip":"[redacted]","ip":"[redacted]"} , "z":1.50}'
    )


def test_a_path_of_any_names_only():
    assert Redaction(["*.*"]).payload(b'{"email":{"email":null},"x":1}') == b'{"email":{"email":"[redacted]"},"x":1}'
    assert b"a@b.de" not in Redaction(["*.*"]).payload(b'{"properties":{"email":"a@b.de","x":1')
    assert Redaction(["a.*.*"]).payload(b'{"a":{"b":{"c":2}}}') == b'{"a":{"b":{"c":"[redacted]"}}}'


def test_an_escaped_name_is_found():
    assert Redaction(["properties.email"]).payload(b'{"properties":{"\\u0065mail":"a@b.de"}}') == (
        b'{"properties":{"\\u0065mail":"[redacted]"}}'
    )


@pytest.mark.parametrize(
    "payload",
    [
        b'{"properties":{"email":"a@b.de","x":1',
        b'{"properties":{"email":"a@b.de',
        b'\xff\xfe{"email": {"of": "a@b.de"}, ',
        b'{"a":1} {"email" : "a@b.de"}',
        b'{"email":"a@b.de"' + b',"d":[' * 100_000,
    ],
)
def test_of_bytes_that_are_no_json_the_named_values_are_gone_too(payload):
    redacted = Redaction(["properties.email"]).payload(payload)
    assert b"a@b.de" not in redacted
    assert b'"[redacted]"' in redacted


@pytest.mark.parametrize("path", ["", "a..b", ".a", "messageId", "userId", "timestamp", "*"])
def test_a_path_that_is_none_or_that_letters_need_is_refused(path):
    with pytest.raises(ConfigError, match=r"dead\.redact"):
        Redaction([path])


def test_a_letter_says_that_it_is_redacted():
    rows = [
        {"reason": "schema", "detail": "d", "received_at": 0, "payload": payload, "redacted": was}
        for payload, was in [(b'{"context":{"ip":"1"}}', None), (b"{}", None), (b"{}", True)]
    ]
    letters = pa.RecordBatch.from_pylist(rows, DEAD)
    changed = Redaction(["context.ip"]).letters(letters)
    assert changed.column("redacted").to_pylist() == [True, False, True]
    assert changed.column("payload").to_pylist() == [b'{"context":{"ip":"[redacted]"}}', b"{}", b"{}"]
    assert Redaction().letters(letters) is letters


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("user jane.doe+x@mail.example.com is unknown", "user [e-mail] is unknown"),
        ("redis://app:s3cret@10.0.0.1:6379/0 refuses", "redis://[redacted]@10.0.0.1:6379/0 refuses"),
        ("postgresql://me@db/x", "postgresql://[redacted]@db/x"),
        ("frame raw/0@17 does not read", "frame raw/0@17 does not read"),
        ("id-1@1.2 of 'purchase'", "id-1@1.2 of 'purchase'"),
    ],
)
def test_a_log_line_has_no_addresses_and_no_passwords(text, shown):
    assert line(text) == shown


def test_tracebacks_are_redacted_too():
    try:
        raise ValueError("no such user: jane@example.com")
    except ValueError:
        record = logging.makeLogRecord({"msg": "failed for %s", "args": ("joe@example.com",)})
        record.exc_info = sys.exc_info()
    text = LineFormatter("%(message)s").format(record)
    assert "example.com" not in text
    assert text.startswith("failed for [e-mail]\nTraceback")
    assert text.endswith("ValueError: no such user: [e-mail]")
