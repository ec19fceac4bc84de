"""Answers as CSV: what a reader of RFC 4180 gets back, and nothing that a spreadsheet would run."""

from __future__ import annotations

import csv
import io

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventmill.query.render import ARROW, CSV, Answer

#: Lone surrogates are no text, and csv's own reader takes no NUL before Python 3.11.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


def read(answer):
    return list(csv.reader(io.StringIO(answer.as_csv(), newline="")))


@given(st.lists(st.tuples(texts, st.integers(-(2**63), 2**63 - 1)), max_size=5))
def test_a_reader_gets_back_what_was_written_but_for_the_apostrophe(rows):
    table = pa.table(
        {"name": pa.array([row[0] for row in rows], pa.string()), "n": pa.array([row[1] for row in rows], pa.int64())}
    )
    header, *found = read(Answer(table, {}))
    assert header == ["name", "n"]
    assert [
        (cells[0].removeprefix("'") if cells[0] != row[0] else cells[0], int(cells[1]))
        for cells, row in zip(found, rows, strict=True)
    ] == rows
    assert all(cells[0][:1] not in tuple("=+-@\t\r\n＝＋－＠") or not cells[0] for cells in found)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "＋1", "－1", "＠x"])
def test_a_text_that_would_run_gets_an_apostrophe(text):
    assert read(Answer(pa.table({"a": [text]}), {}))[1] == [f"'{text}"]
    assert read(Answer(pa.table({text: ["x"]}), {}))[0] == [f"'{text}"]


def test_other_values_are_as_json_has_them():
    table = pa.table(
        {
            "none": pa.array([None], pa.string()),
            "negative": [-1.5],
            "yes": [True],
            "list": [[1, 2]],
            "map": [{"a": "b"}],
        }
    )
    assert read(Answer(table, {}))[1] == ["", "-1.5", "true", "[1,2]", '{"a":"b"}']


@pytest.mark.parametrize(
    ("accept", "kind"),
    [("text/csv", CSV), ("*/*", "application/json"), ("", "application/json"), (ARROW, ARROW), ("text/csv;q=0.9", CSV)],
)
def test_a_client_gets_the_form_that_it_asks_for(accept, kind):
    assert Answer(pa.table({"a": [1]}), {}).response(accept).content_type.startswith(kind)
