"""ClickHouse's conditions in Trino's SQL: the same where both mean the same, else one that holds wherever the given does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventmill.core.config import Config, LakeConfig, TrinoConfig
from eventmill.core.errors import ConfigError
from eventmill.query.sql_text import around, call, split
from eventmill.query.trino import Trino, open_engine
from eventmill.query.trino_sql import bound, json_path, text

VALUES = {"t": "o'clock", "u": "tap", "n": 7, "f": 3.5, "at": 1_779_840_000_500, "k": "price", "b": 'a"b', "d": "0"}
TOKEN = 'json_format(json_extract("properties", \'$["price"]\'))'
NOTHING = f"{TOKEN} IS NULL OR {TOKEN} = 'null'"
AS_TEXT = "JSONExtract(properties, {k:String}, 'Nullable(String)')"
AS_NUMBER = "JSONExtract(properties, {k:String}, 'Nullable(Float64)')"
SAME = {
    "event = {t:String}": "(\"event\" = 'o''clock')",
    "event IN ({t:String}, {u:String})": "(\"event\" IN ('o''clock', 'tap'))",
    "(NOT (event IN ({t:String}, {u:String})))": "(NOT (\"event\" IN ('o''clock', 'tap')))",
    "(platform IS NULL OR platform != {u:String})": '(("platform" IS NULL) OR ("platform" <> \'tap\'))',
    "(NOT (user_id IS NOT NULL))": '("user_id" IS NULL)',
    "(flags IN ({n:Int64}))": "(\"flags\" IN (BIGINT '7'))",
    "(position(country, {t:String}) > 0)": "(strpos(\"country\", 'o''clock') > 0)",
    "timestamp >= fromUnixTimestamp64Milli({at:Int64}, 'UTC')": "(\"timestamp\" >= TIMESTAMP '2026-05-27 00:00:00.500 UTC')",
    "event_date BETWEEN toDate32(fromUnixTimestamp64Milli({at:Int64}, 'UTC')) AND "
    "toDate32(fromUnixTimestamp64Milli({at:Int64}, 'UTC'))": "(\"event_date\" BETWEEN DATE '2026-05-27' AND DATE '2026-05-27')",
    "_file IN ('a.parquet', 'b.parquet')": "(element_at(split(\"$path\", '/'), -1) IN ('a.parquet', 'b.parquet'))",
    "(ifNull(user_id = {u:String}, 0) OR device_id = {u:String})": "((\"user_id\" = 'tap') OR (\"device_id\" = 'tap'))",
    "0": "false",
}
WEAKER = {
    f"({AS_TEXT} IS NOT NULL)": f"(NOT ({NOTHING}))",
    f"(NOT ({AS_TEXT} IS NOT NULL))": f"({NOTHING})",
    f"{AS_NUMBER} IS NULL": f"(({NOTHING}) OR NOT regexp_like({TOKEN}, '^[-0-9]'))",
    f"({AS_NUMBER} > {{f:Float64}})": f"(CASE WHEN {NOTHING} THEN false WHEN regexp_like({TOKEN}, '^[-0-9]') THEN "
    f"(CAST({TOKEN} AS double) > DOUBLE '3.5') ELSE true END)",
    f"(NOT ({AS_TEXT} = {{u:String}}))": f"(CASE WHEN {NOTHING} THEN false WHEN {TOKEN} LIKE '\"%' THEN "
    "(NOT (json_extract_scalar(\"properties\", '$[\"price\"]') = 'tap')) ELSE true END)",
    f"({AS_NUMBER} > {{f:Float64}} AND event = {{u:String}})": f"((CASE WHEN {NOTHING} THEN false WHEN "
    f"regexp_like({TOKEN}, '^[-0-9]') THEN (CAST({TOKEN} AS double) > DOUBLE '3.5') ELSE true END) AND (\"event\" = 'tap'))",
    # What Trino would read otherwise, or not at all.
    "JSONExtract(properties, {b:String}, 'Nullable(String)') IS NULL": "true",
    "JSONExtract(properties, {d:String}, 'Nullable(String)') IS NULL": "true",
    "(event_id = toFixedString(unhex({u:String}), 16))": "true",
    "(toUnixTimestamp64Milli(timestamp), event_id) < ({n:Int64}, toFixedString(unhex({u:String}), 16))": "true",
    "lower(event) = {u:String}": "true",
    "no sql at all (": "true",
}


@pytest.mark.parametrize(("given", "expected"), [*SAME.items(), *WEAKER.items()])
def test_a_condition_holds_wherever_the_given_one_does(given, expected):
    found = bound(given, VALUES)
    assert (found.sql, found.exact) == (expected, given in SAME)


def test_a_weak_condition_makes_all_that_it_is_in_weak():
    found = bound(f"(event = {{u:String}} OR (NOT ({AS_NUMBER} > {{f:Float64}})))", VALUES)
    assert not found.exact
    assert found.sql.startswith("((\"event\" = 'tap') OR (CASE")
    assert "(NOT (CAST(" in found.sql


@given(st.text())
def test_no_text_ends_its_quotation(value):
    assert text(value)[1:-1].replace("''", "").count("'") == 0


def test_a_path_is_only_one_that_means_a_member():
    assert json_path(["a b", "ü", "x.y"]) == '$["a b"]["ü"]["x.y"]'
    assert [json_path([key]) for key in ("0", "-1", 'a"', "a\\", "a\nb")] == [None] * 5


def test_sql_is_cut_where_no_parenthesis_is_open():
    assert split("a, f(b, c), (d, e)", ", ") == ["a", "f(b, c)", "(d, e)"]
    sql = "SELECT x FROM (SELECT f(1) FROM m WHERE a UNION ALL SELECT 2 FROM m WHERE (b) GROUP BY c) GROUP BY x"
    first = sql.index(" FROM m")
    assert sql[slice(*around(sql, first, " UNION ALL "))] == "SELECT f(1) FROM m WHERE a"
    second = sql.index(" FROM m", first + 1)
    assert sql[slice(*around(sql, second, " UNION ALL "))] == "SELECT 2 FROM m WHERE (b) GROUP BY c"
    assert sql[slice(*around(sql, 2, " UNION ALL "))] == sql
    assert call("f(0.5, 1)(g(x), y)") == ("f", "(0.5, 1)", "g(x), y")
    assert call("count()") == ("count", "", "")
    assert [call(each) for each in ("f(x) + g(y)", "x", "f(x) * 2", "(x)")] == [None] * 4


def test_settings_that_cannot_work_are_refused_with_the_cure():
    lake = LakeConfig(warehouse="s3://b/x", catalog="postgresql://u:p@h/d")
    assert open_engine(Config()) is None
    with pytest.raises(ConfigError, match=r"lake.warehouse.*lake.catalog"):
        open_engine(Config(trino=TrinoConfig(url="http://t:8080")))
    for url in ("trino:8080", "ftp://t", "http://", "http://t:port", "http://u:secret@t"):
        with pytest.raises(ConfigError, match="write it like https://") as raised:
            open_engine(Config(lake=lake, trino=TrinoConfig(url=url)))
        assert "secret" not in str(raised.value)
    with pytest.raises(ConfigError, match="https"):
        Trino(TrinoConfig(url="http://t:8080", password="secret"))
    with pytest.raises(ConfigError, match=r"CATALOG\.SCHEMA\.TABLE"):
        Trino(TrinoConfig(url="http://t:8080", table="events"))
    made = open_engine(Config(lake=lake, trino=TrinoConfig(url="https://t", password="secret", table='a.b."c')))
    assert made is not None
    assert made.table == '"a"."b"."""c"'
