"""SQL over the lake in Trino's dialect: what is translated, and that all else is refused by its name."""

from __future__ import annotations

import pytest

from eventmill.core.errors import QueryError
from eventmill.query.trino_select import translated

LAKE = '(SELECT * FROM "a"."b"."c")'
E = '"events"."event"'
KEYED = """JSON_EXTRACT_SCALAR("events"."properties", '$["a{0}{b}"]')"""
DONE = {
    "SELECT event AS e, count() AS c FROM lake.events WHERE e != 'x' GROUP BY e HAVING c > 3 ORDER BY c DESC LIMIT 5": (
        f'SELECT {E} AS "e", COUNT(*) AS "c" FROM {LAKE} AS "events" WHERE {E} <> \'x\' GROUP BY {E} '
        'HAVING COUNT(*) > 3 ORDER BY "c" DESC LIMIT 5'
    ),
    "SELECT uniqExact(event) AS n FROM lake.events": f'SELECT COUNT(DISTINCT {E}) AS "n" FROM {LAKE} AS "events"',
    "SELECT sum(flags) / 2 AS n FROM lake.events": (
        'SELECT (CAST(COALESCE(SUM("events"."flags"), 0) AS DOUBLE) / CAST(2 AS DOUBLE)) AS "n" '
        f'FROM {LAKE} AS "events"'
    ),
    "SELECT event FROM lake.events WHERE timestamp < '2026-05-27T12:00:00Z' AND event = {name:String}": (
        f'SELECT {E} AS "event" FROM {LAKE} AS "events" WHERE "events"."timestamp" < '
        f"CAST('2026-05-27 12:00:00.000 UTC' AS TIMESTAMP(3) WITH TIME ZONE) AND {E} = 'o''clock \"b\".\"c\"'"
    ),
    "SELECT flags * 1.5 AS n FROM lake.events": 'SELECT "events"."flags" * CAST(\'1.5\' AS DOUBLE) AS "n" '
    f'FROM {LAKE} AS "events"',
    # What stands behind the last SELECT of a union is of that one in ClickHouse.
    "SELECT event AS e FROM lake.events UNION ALL SELECT type AS e FROM lake.events LIMIT 3": (
        f'SELECT {E} AS "e" FROM {LAKE} AS "events" UNION ALL (SELECT "events"."type" AS "e" FROM {LAKE} AS "events" LIMIT 3)'
    ),
    # A key may look like a place in a template.
    "SELECT JSONExtractFloat(properties, 'a{0}{b}') > 1 AS n FROM lake.events": (
        f"SELECT CASE WHEN REGEXP_LIKE({KEYED}, '^-?[0-9]+(\\.[0-9]*)?([eE][-+]?[0-9]+)?$') "
        f'THEN CAST({KEYED} AS DOUBLE) ELSE 0e0 END > 1 AS "n" FROM {LAKE} AS "events"'
    ),
    "SELECT toDate(timestamp) AS d FROM lake.events AS l": (
        f'SELECT CAST("l"."timestamp" AS DATE) AS "d" FROM {LAKE} AS "l"'
    ),
}
REFUSED = {
    "SELECT length(event) FROM lake.events": "length",
    "SELECT uniq(event) FROM lake.events": "approxdistinct",
    "SELECT quantile(0.5)(flags) FROM lake.events": "quantile",
    "SELECT intDiv(flags, 2) FROM lake.events": "intDiv",
    "SELECT toHour(timestamp) FROM lake.events": "toHour",
    "SELECT toStartOfMonth(timestamp) FROM lake.events": "a time cut to a month",
    "SELECT minIf(flags, flags > 1) FROM lake.events": "minIf",
    "SELECT sum(if(flags = 1, 1, NULL)) FROM lake.events": "a sum of nulls",
    "SELECT event FROM lake.events LIMIT 1 BY event": "EXPRESSIONS",
    "SELECT row_number() OVER (ORDER BY event) FROM lake.events": "window",
    "SELECT a.event FROM lake.events AS a JOIN lake.events AS b USING (event_id)": "JOINS",
    "SELECT count() FROM lake.events GROUP BY ALL": "ALL",
    "SELECT event FROM lake.events GROUP BY event WITH TOTALS": "TOTALS",
    "SELECT event FROM lake.events FINAL": "final",
    "SELECT event FROM lake.events SAMPLE 0.1": "tablesample",
    "SELECT event FROM lake.events PREWHERE flags = 1": "PREWHERE",
    "SELECT event FROM lake.events WHERE user_id NOT IN (SELECT user_id FROM lake.events)": "QUERY",
    "SELECT event FROM lake.events WHERE user_id NOT IN ('a', NULL)": "NULL in IN",
    "SELECT event FROM lake.events WHERE event LIKE 'a\\\\_'": "a backslash in LIKE",
    "SELECT CAST(flags AS Int8) FROM lake.events": "cast",
    "SELECT arrayJoin([1, 2]) FROM lake.events": "explode",
    "SELECT JSONExtractFloat(properties, 'a', 1) FROM lake.events": "JSONExtractFloat of this",
    "SELECT JSONExtractFloat(event, 'a') FROM lake.events": "JSONExtractFloat of this",
    "SELECT JSONExtractString(properties, 'a') FROM lake.events": "jsonextractscalar",
    "SELECT file('x') FROM lake.events": "file",
}


@pytest.mark.parametrize("query", DONE)
def test_what_means_the_same_is_translated(query: str) -> None:
    assert translated(query, {"name": 'o\'clock "b"."c"'}, LAKE) == DONE[query]


@pytest.mark.parametrize("query", REFUSED)
def test_all_else_is_refused_by_its_name(query: str) -> None:
    with pytest.raises(QueryError) as raised:
        translated(query, {}, LAKE)
    assert str(raised.value).startswith(
        f"{REFUSED[query]} is not translated for Trino; leave engine out to ask ClickHouse"
    )


def test_what_is_not_there_is_named() -> None:
    with pytest.raises(QueryError, match="'nothing' could not be resolved"):
        translated("SELECT nothing FROM lake.events", {}, LAKE)
    with pytest.raises(QueryError, match="a time in query"):
        translated("SELECT event FROM lake.events WHERE timestamp > 'soon'", {}, LAKE)
