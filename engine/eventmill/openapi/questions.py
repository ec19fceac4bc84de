"""Descriptions of the questions: their bodies, from the constants that check them, and their answers."""

from __future__ import annotations

from typing import Any, Final

from eventmill.openapi.parts import Piece, answers, choice, json, listed, nullable, number, record, ref, response, text
from eventmill.query import conditions, fields, funnel, paths, retention, sessions, timeline, trends
from eventmill.query.body import BREAKDOWNS_MAX, EVENT_CHARS_MAX, INTERVALS, LIMIT, LIMIT_MAX, WHO
from eventmill.query.relative import FORM
from eventmill.query.render import ARROW, CSV

_TAGS: Final = ["questions"]
_SPAN: Final = {"from": ref("Time"), "to": ref("Time")}
_EVENT: Final = nullable(text("An event's name; null: any", maxLength=EVENT_CHARS_MAX))
_FILTERS: Final = nullable(
    listed(ref("Condition"), maxItems=conditions.FILTERS_MAX, description="An event must meet all")
)
_MEASURE: Final = choice(WHO, description="Whom to count", default="devices")
_LIMIT: Final = number("Values of the breakdown that get rows of their own", least=1, maximum=LIMIT_MAX, default=LIMIT)
_BREAKDOWN: Final = nullable(ref("Field"))
_NUMBERS: Final = "|".join(fields.NUMBER_COLUMNS)
_PATHS: Final = "|".join(fields.JSON_COLUMNS)
_FUNCTIONS: Final = "|".join(trends.OF_VALUES)
_COUNTED: Final = "|".join(("events", *trends.COUNTED))

#: Kind to what it asks, its body's keys, those that it cannot do without, and an example.
KINDS: Final[dict[str, tuple[str, dict[str, Piece], tuple[str, ...], dict[str, Any]]]] = {
    "trends": (
        "A measure over time",
        {
            "event": _EVENT,
            **_SPAN,
            "interval": choice(INTERVALS, default="hour"),
            "measure": text(
                "events, devices, users, sessions, or a function of a number",
                pattern=rf"^({_COUNTED}|({_FUNCTIONS}):({_NUMBERS}|({_PATHS})(\.[^.]+)+))$",
                default="events",
            ),
            "breakdown": {"anyOf": [_BREAKDOWN, listed(ref("Field"), minItems=1, maxItems=BREAKDOWNS_MAX)]},
            "filters": _FILTERS,
            "limit": _LIMIT,
            "compare": {"enum": ["previous", None], "description": "Beside the period of the same length before"},
            "cumulative": {"type": "boolean", "description": "Each bucket with all before it", "default": False},
        },
        ("from", "to"),
        {"event": "Product Viewed", "from": "2026-11-02T00:00:00Z", "to": "2026-11-05T00:00:00Z", "interval": "day",
         "breakdown": "platform"},
    ),
    "funnel": (
        "Who takes steps in an order within a time",
        {
            "steps": listed(ref("Selection"), minItems=2, maxItems=funnel.STEPS_MAX),
            **_SPAN,
            "window": ref("Duration"),
            "measure": _MEASURE,
            "breakdown": _BREAKDOWN,
            "filters": _FILTERS,
            "limit": _LIMIT,
        },
        ("steps", "from", "to"),
        {"steps": [{"event": "App Opened"}, {"event": "Order Completed"}], "window": "1h",
         "from": "2026-11-02T00:00:00Z", "to": "2026-11-05T00:00:00Z"},
    ),
    "retention": (
        "Who comes again in the periods after their first",
        {
            **_SPAN,
            "interval": choice(retention.UNITS, default="day"),
            "first": nullable(ref("Selection")),
            "returning": nullable(ref("Selection")),
            "cohort": choice(retention.COHORTS, default="first"),
            "measure": _MEASURE,
            "filters": _FILTERS,
        },
        ("from", "to"),
        {"first": {"event": "App Opened"}, "interval": "day", "from": "2026-11-02T00:00:00Z", "to": "2026-11-05T00:00:00Z"},
    ),
    "sessions": (
        "How many sessions, how long, how many events each, how many end after one event",
        {
            "event": _EVENT,
            **_SPAN,
            "interval": choice((*INTERVALS, sessions.TOTAL), default="hour"),
            "breakdown": _BREAKDOWN,
            "filters": _FILTERS,
            "limit": _LIMIT,
        },
        ("from", "to"),
        {"interval": "total", "breakdown": "platform", "from": "2026-11-02T00:00:00Z", "to": "2026-11-05T00:00:00Z"},
    ),
    "timeline": (
        "What one user or device did, the newest first",
        {
            **{key: text(f"Whose events: {', '.join(of)}", minLength=1, maxLength=fields.TEXT_CHARS_MAX)
               for key, of in timeline.WHOSE.items()},
            **_SPAN,
            "event": _EVENT,
            "filters": _FILTERS,
            "limit": number("Events a page", least=1, maximum=timeline.EVENTS_MAX, default=timeline.EVENTS),
            "cursor": nullable(text("Of the page before: its `meta.cursor`")),
        },
        (),
        {"user": "ana", "from": "2026-11-01T00:00:00Z", "to": "2026-11-05T00:00:00Z", "limit": 2},
    ),
    "paths": (
        "What comes next after an event, or came before one, within a session",
        {
            "start": text("What comes after it", maxLength=EVENT_CHARS_MAX),
            "end": text("What came before it", maxLength=EVENT_CHARS_MAX),
            **_SPAN,
            "depth": number("Steps", least=1, maximum=paths.DEPTH_MAX, default=paths.DEPTH),
            "top": number("Events a step with rows of their own", least=1, maximum=paths.TOP_MAX, default=paths.TOP),
            "filters": _FILTERS,
        },
        ("from", "to"),
        {"start": "App Opened", "depth": 2, "from": "2026-11-02T00:00:00Z", "to": "2026-11-05T00:00:00Z"},
    ),
    "sql": (
        "One SELECT over events, events_1m, sessions and lake.events, in ClickHouse's dialect",
        {
            "query": text("One SELECT", minLength=1),
            "parameters": nullable({"type": "object", "description": "For `{name:Type}` in the query"}),
            "engine": nullable(choice(["clickhouse", "trino"])),
        },
        ("query",),
        {"query": "SELECT event, count() AS n FROM events WHERE platform = {platform:String} GROUP BY event",
         "parameters": {"platform": "ios"}},
    ),
}  # fmt: skip

#: Of some keys exactly one is given.
_ONE_OF: Final[dict[str, Piece]] = {
    "timeline": {"oneOf": [{"required": [key]} for key in timeline.WHOSE]},
    "paths": {"oneOf": [{"required": [key]} for key in ("start", "end")]},
}


def schemas() -> dict[str, Piece]:
    """Schemas by name."""
    columns = (*fields.TEXT_COLUMNS, *fields.NUMBER_COLUMNS, *fields.TIME_COLUMNS, "event_id")
    a_condition = record({"field": ref("Field"), "op": choice(fields.OPERATORS), "value": {}}, optional=["value"])
    group = {"items": ref("Condition"), "type": "array", "minItems": 1, "maxItems": conditions.FILTERS_MAX}
    answer = {
        "columns": listed(text()),
        "rows": listed(listed({}), description="A value for each column"),
        "meta": ref("Meta"),
    }
    return {
        "Time": {
            "anyOf": [
                text("ISO 8601; without an offset it is UTC", format="date-time"),
                text(pattern=f"^{FORM.pattern}$"),
            ],
            "description": "A moment, or a relative time like now, -7d, -24h/hour or now/day",
        },
        "Duration": {
            "anyOf": [text(pattern=r"^\d+(\.\d+)?(ms|s|m|h|d)$"), number("ms", least=1)],
            "description": "A length of time like 90s, 30m, 24h or 7d",
        },
        "Field": text(
            "A column, or a path into JSON like properties.price",
            pattern=rf"^({'|'.join(columns)}|({_PATHS})(\.[^.]+){{1,{fields.DEPTH_MAX}}})$",
            maxLength=fields.TEXT_CHARS_MAX,
        ),
        "Condition": {
            "oneOf": [a_condition, record({"any": group}), record({"all": group})],
            "description": f"Groups stand up to {conditions.DEPTH_MAX - 1} deep in one another",
        },
        "Selection": record({"event": _EVENT, "filters": _FILTERS}, optional=["event", "filters"]),
        **{
            _body(kind): record(keys, optional=set(keys) - set(needed), **_ONE_OF.get(kind, {}))
            for kind, (_, keys, needed, _) in KINDS.items()
        },
        "Answer": record(answer),
        "Meta": record(
            {
                "stores": listed(choice(["realtime", "lake"]), description="Who was asked"),
                "boundary": nullable(text("What happened before it comes from the lake", format="date-time")),
                "estimated_rows": number("To be read"),
                "elapsed_ms": {"type": "number", "minimum": 0},
                "cached": {"type": "boolean"},
                "complete_until": nullable(
                    text("What happened before it changes by very late events only", format="date-time")
                ),
                "provisional": listed(
                    record({"time": text(format="date-time"), "expected_share": {"type": "number"}}),
                    description="Buckets of which a share is still expected",
                ),
                "cursor": nullable(text("Where the next page of a timeline begins")),
                "kept": record(
                    {
                        "raw_from": text("Since when single events are all there", format="date-time"),
                        "aggregates_from": text("Since when aggregates are", format="date-time"),
                        "downsampled": {"type": "object", "description": "The same as `raw_from`, by event"},
                    },
                    optional=["downsampled"],
                    description="Where events are retired: what there still is",
                ),
            },
            optional=["cursor", "complete_until", "provisional", "kept"],
            additionalProperties=True,
        ),
        "Explanation": record(
            {
                "stores": listed(choice(["realtime", "lake"])),
                "boundary": nullable(text(format="date-time")),
                "tables": listed(
                    record(
                        {
                            "table": text(),
                            "rows": number(),
                            "bytes": number("On disk, about"),
                            "engine": choice(["clickhouse", "trino"]),
                        }
                    )
                ),
                "sql": text(),
                "parameters": {"type": "object"},
                "trino": listed(text("A statement that Trino is asked")),
            },
            additionalProperties=True,
        ),
        "LiveEvent": record(
            {
                "id": text("Where one is in the stream"),
                "event": text("`skipped`: there were more than are told"),
                "data": text("The event's JSON"),
                "retry": {},
            },
            optional=["id", "event", "data", "retry"],
        ),
        "Refused": record(
            {
                "success": {"const": False},
                "error": text(),
                "estimated_rows": number(),
                "rows_max": number("`query.scan_rows_max`"),
                "hint": text("What would fit"),
            }
        ),
    }


def paths_of() -> dict[str, Any]:
    """The operations by path."""
    return {f"/v1/query/{kind}": {"post": _ask(kind)} for kind in KINDS} | {"/v1/live": {"get": _live()}}


#: Of every question.
EXPLAIN: Final = {
    "name": "explain",
    "in": "query",
    "description": "1: tell how it would be answered instead",
    "schema": choice(["", "0", "1"], default="0"),
}
_FORMS: Final = {
    **json({"oneOf": [ref("Answer"), ref("Explanation")]}),
    ARROW: {"schema": text("The same columns; `meta` stands in the schema's metadata", format="binary")},
    CSV: {
        "schema": text("The same columns, with a header (RFC 4180); what a spreadsheet would run gets an apostrophe")
    },
}
_REFUSED: Final = json({"anyOf": [ref("Error"), ref("Refused")]})
ANSWERS: Final = answers(
    {200: response("The answer", _FORMS), 400: response("What to change, or what it would cost", _REFUSED)}, engine=True
)


def _body(kind: str) -> str:
    return f"{kind.capitalize()}Body"


def _ask(kind: str) -> Piece:
    summary, _, _, example = KINDS[kind]
    return {
        "operationId": kind,
        "summary": summary,
        "tags": _TAGS,
        "parameters": [EXPLAIN],
        "requestBody": {"required": True, "content": json(ref(_body(kind)), example=example)},
        "responses": ANSWERS,
    }


def _live() -> Piece:
    def parameter(name: str, description: str, schema: Piece) -> Piece:
        return {"name": name, "in": "query", "description": description, "schema": schema}

    return {
        "operationId": "live",
        "summary": "Events as they reach the real-time store",
        "description": "Server-sent events. An answer ends when it has brought something, or after seconds; ask again behind "
        "the last id.",
        "tags": _TAGS,
        "parameters": [
            parameter("event", "Only events of this name", text(maxLength=EVENT_CHARS_MAX)),
            parameter("id", "Only of this user or device", text(maxLength=EVENT_CHARS_MAX)),
            parameter("after", "The last id that was seen", text(pattern="^[0-9]{0,18}$")),
        ],
        "responses": answers(
            {200: response("Events", {"text/event-stream": {"schema": ref("LiveEvent")}})}, engine=True
        ),
    }
