"""``eventmill query`` against a real server: tables, JSON, Arrow, and mistakes."""

from __future__ import annotations

import io

import orjson
import pyarrow as pa
import pytest
from rich.console import Console

from eventmill.cli.answers import print_answer, sparkline
from eventmill.cli.query import filter_of
from eventmill.core.errors import ConfigError
from serving import Serving, eventmill

STEPS = ("Product Viewed", "Product Added", "Order Completed")


@pytest.fixture(scope="module")
def serving(tmp_path_factory):
    found = Serving(tmp_path_factory.mktemp("cli"))
    try:
        sent = eventmill("generate", "--url", found.url, "--events", "3000", "--span", "20h", "--json")
        assert sent.returncode == 0, sent.stderr
        found.flush()
        yield found
    finally:
        found.kill()


def ask(serving, *arguments):
    done = eventmill("query", *arguments, "--url", serving.url, COLUMNS="200")
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("trends", "Product Viewed", "--last", "24h", "--by", "platform"), ["time", "breakdown", "▁", "from realtime"]),
        (("trends", "--by", "platform", "--by", "event"), ["breakdown 2", " / ", "▁", "from realtime"]),
        (("trends", "--measure", "sum:properties.price", "--filter", "properties.price gt 10"), ["value"]),
        (("funnel", *STEPS, "--window", "1h", "--by", "platform"), ["conversion", "%", *STEPS]),
        (("retention", "--first", "Product Viewed", "--last", "3d"), ["cohort", "size", "+1"]),
        (("sessions", "--interval", "total"), ["bounce", "events", "p95"]),
        (("paths", "--start", "Product Viewed", "--depth", "1"), ["source", "target"]),
        (("sql", "SELECT event, count() AS n FROM events WHERE event = {e:String} GROUP BY event", "--param",
          "e=Product Viewed"), ["Product Viewed"]),
    ],
)  # fmt: skip
def test_each_kind_shows_the_answer_of_the_server(serving, arguments, words):
    shown = ask(serving, *arguments)
    assert all(word in shown for word in words), shown
    answer = orjson.loads(ask(serving, *arguments, "--json"))
    assert answer["rows"]
    assert set(answer) == {"columns", "rows", "meta"}


def test_a_timeline_goes_on_at_its_cursor(serving):
    ((user,),) = serving.sql(
        "SELECT user_id FROM events WHERE user_id != '' GROUP BY user_id ORDER BY count() DESC, user_id LIMIT 1"
    )
    first = orjson.loads(ask(serving, "timeline", user, "--limit", "2", "--json"))
    assert f"--cursor {first['meta']['cursor']}" in ask(serving, "timeline", "--user", user, "--limit", "2")
    then = orjson.loads(ask(serving, "timeline", user, "--limit", "2", "--cursor", first["meta"]["cursor"], "--json"))
    ids = [row[1] for row in first["rows"] + then["rows"]]
    assert len(set(ids)) == 4


def test_an_arrow_stream_goes_to_a_file(serving, tmp_path):
    path = tmp_path / "events.arrow"
    assert ask(serving, "sql", "SELECT event, count() AS n FROM events GROUP BY event", "--arrow", str(path)) == ""
    table = pa.ipc.open_stream(path.read_bytes()).read_all()
    assert sum(table.column("n").to_pylist()) == serving.sql("SELECT count() FROM events")[0][0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("funnel", "one"), "steps must be a list of 2 to 10"),
        (("trends", "--by", "nation"), "there is no field 'nation'"),
        (("trends", "--last", "soon"), "--last: 'soon' is not a duration"),
        (("trends", "--from", "soon"), "--from: 'soon' is no ISO 8601 time"),
        (("trends", "--from", "2026-01-01", "--last", "1h"), "take one"),
        (("trends", "--filter", "platform"), "write a field, an operator and a value"),
        (("timeline",), "say whose events"),
        (("paths",), "name one event"),
        (("sql", "DROP TABLE events"), "must be a SELECT"),
        (("sql", "SELECT 1", "--param", "x"), "write NAME=VALUE"),
        (("sql", "SELECT 1", "--json", "--arrow", "x"), "take one"),
    ],
)
def test_mistakes_are_one_line(serving, arguments, says):
    done = eventmill("query", *arguments, "--url", serving.url)
    assert done.returncode == 2
    assert says in done.stderr.decode().replace("\n", " ")
    assert b"Traceback" not in done.stderr
    assert done.stdout == b""


def test_no_server_and_no_address():
    for url, says in (("http://127.0.0.1:1", "does not answer"), ("ftp://x", "is no address")):
        done = eventmill("query", "trends", "--url", url)
        assert (done.returncode, says in done.stderr.decode()) == (2, True), done.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("platform eq ios", {"field": "platform", "op": "eq", "value": "ios"}),
        ("app_version eq 2", {"field": "app_version", "op": "eq", "value": "2"}),
        ("properties.price gte 10.5", {"field": "properties.price", "op": "gte", "value": 10.5}),
        ("properties.vip eq true", {"field": "properties.vip", "op": "eq", "value": True}),
        ("properties.name contains a b", {"field": "properties.name", "op": "contains", "value": "a b"}),
        ("country in DE, FR", {"field": "country", "op": "in", "value": ["DE", "FR"]}),
        ("user_id is_set", {"field": "user_id", "op": "is_set"}),
    ],
)
def test_filters(text, expected):
    assert filter_of(text) == expected
    with pytest.raises(ConfigError):
        filter_of("platform")


def test_sparklines():
    assert sparkline([0, 1, 2, 7]) == "▁▂▃█"
    assert sparkline([]) == ""
    assert sparkline([None, 0.0]) == " ▁"
    assert sparkline([-7, 0]) == "▁█"
    assert len(sparkline(list(range(1_000)))) == 59


def test_a_break_down_has_a_gap_where_it_has_no_bucket():
    out = Console(file=io.StringIO(), width=100)
    times = [f"2026-11-23T{hour:02}:00:00Z" for hour in range(5)]
    rows = [[times[0], "ios", 1], [times[1], "ios", 4], [times[4], "ios", 8], [times[1], None, 3]]
    meta = {"stores": ["lake"], "estimated_rows": 1, "elapsed_ms": 1.0}
    print_answer("trends", {"columns": ["time", "breakdown", "value"], "rows": rows, "meta": meta}, out)
    lines = out.file.getvalue().splitlines()
    assert lines[-3] == f"{sparkline([1, 4, None, None, 8])}  ios"
    assert lines[-2] == f"{sparkline([None, 3, None, None, None])}  –"
    assert "2026-11-23 04:00" in out.file.getvalue()


def test_numbers_and_times_stay_whole_in_eighty_columns():
    out = Console(file=io.StringIO(), width=80)
    names = ["time", "breakdown", "sessions", "bounce_rate", "events_per_session", "p50_ms", "p95_ms"]
    row = ["2026-11-26T08:52:58Z", "Android", 1_234, 0.107, 20.53, 222_000, 2_520_000]
    meta = {"stores": ["lake"], "estimated_rows": 1, "elapsed_ms": 1.0}
    print_answer("sessions", {"columns": names, "rows": [row], "meta": meta}, out)
    shown = out.file.getvalue()
    assert all(
        text in shown for text in ("2026-11-26 08:52:58", "Android", "1,234", "10.7%", "20.53", "3.7 m", "42.0 m")
    )
    grid = [["2026-11-01T00:00:00Z", age, 100_000 - age, 1.0] for age in range(60)]
    print_answer("retention", {"columns": ["cohort", "period", "count", "share"], "rows": grid, "meta": meta}, out)
    shown = out.file.getvalue()
    assert "100.0%" in shown
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_what_events_say_does_not_steer_the_terminal():
    out = Console(file=io.StringIO(), width=100, force_terminal=True)
    meta = {"stores": ["lake"], "estimated_rows": 1, "elapsed_ms": 1.0}
    print_answer("sql", {"columns": ["[red]\x1b[31m"], "rows": [["\x1b]0;owned\x07[bold]x"]], "meta": meta}, out)
    shown = out.file.getvalue()
    assert "\\x1b]0;owned\\x07[bold]x" in shown
    assert "\x1b]0" not in shown
    assert "\x07" not in shown
