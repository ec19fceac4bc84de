"""What a new version of a schema breaks: properties, and the questions that are saved about them."""

from __future__ import annotations

import pytest

from eventmill.core.renames import AS_STORED, Renames
from eventmill.process.schemas.impact import broken
from eventmill.query.mentions import properties_of
from eventmill.query.saved import Saved

OLD = {
    "properties": {
        "price": {"type": "integer"}, "coupon": {"type": "string"},
        "cart": {"type": "object", "properties": {"size": {"type": "number"}}},
    }
}  # fmt: skip


@pytest.mark.parametrize(
    ("after", "found"),
    [
        (OLD, {}),
        ({}, {}),
        ({"properties": {"price": {"type": "number"}}}, {}),
        (
            {"properties": {"price": {"type": ["string", "number"]}}},
            {"price": "was number, and may be string or number"},
        ),
        (
            {"additionalProperties": False, "properties": {"price": {"type": "integer"}}},
            dict.fromkeys(("cart", "cart.size", "coupon"), "may not be there any more"),
        ),
        (
            {"properties": {**OLD["properties"], "cart": {"type": "object", "additionalProperties": False}}},
            {"cart.size": "may not be there any more"},
        ),
    ],
)
def test_members_that_go_or_change_their_type_are_found(after, found):
    assert broken(OLD, after) == found


def test_a_property_that_no_schema_named_breaks_where_the_new_one_is_closed():
    closed = {"additionalProperties": False, "properties": {}}
    assert broken(None, closed) == {}
    assert broken(None, closed, ["seen"]) == {"seen": "may not be there any more"}
    assert broken(OLD, OLD, ["seen", "price"]) == {}


@pytest.mark.parametrize(
    ("kind", "query", "found"),
    [
        (
            "trends",
            {"event": "e", "measure": "sum:properties.price", "breakdown": ["properties.a.b", "platform"]},
            {"price", "a.b"},
        ),
        ("trends", {"event": "other", "measure": "sum:properties.price"}, set()),
        ("trends", {"event": None, "measure": "p95:properties.price"}, {"price"}),
        ("funnel", {"steps": [{"event": "x"}, {"event": "e", "filters": [{"field": "properties.z"}]}]}, {"z"}),
        ("trends", {"filters": [{"any": [{"field": "properties.q", "value": "no properties.v"}]}]}, {"q"}),
        ("sql", {"query": "SELECT properties.price, properties.`odd name` FROM events"}, {"price", "odd name"}),
        ("sql", {"query": "SELECT JSONExtractFloat(properties, 'price') FROM events"}, {"price"}),
        (
            "sql",
            {"query": "SELECT JSONExtract(properties, 'cart', 'size', 'Float64')"},
            {"cart", "cart.size", "cart.size.Float64"},
        ),
        ("sql", {"query": "SELECT count() FROM events"}, set()),
    ],
)
def test_what_a_saved_question_hangs_on(kind, query, found):
    assert properties_of(Saved("q", kind, query, 0), "e", AS_STORED) == found


def test_a_saved_question_about_an_old_name_hangs_on_what_the_event_is_now():
    saved = Saved("q", "trends", {"event": "old", "measure": "sum:properties.price"}, 0)
    assert properties_of(saved, "e", AS_STORED) == set()
    assert properties_of(saved, "e", Renames.parse({"old": "e"})) == {"price"}
