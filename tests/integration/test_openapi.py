"""The OpenAPI description against the server that it describes: schemathesis asks, and holds every answer to it."""

from __future__ import annotations

import http.client
import re
import time
from datetime import UTC, datetime
from pathlib import Path

import hypothesis.strategies as st
import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance
from tests.serving import seeded

from eventmill.core.schema import Hop, Reason
from eventmill.ingest.endpoints import FORWARDED, REPLAY
from eventmill.net.messages import Request
from eventmill.openapi import questions
from eventmill.openapi.document import PATH, Description, document
from eventmill.query import funnel, paths, retention, sessions, timeline, trends
from eventmill.query.service import KINDS, SQL

HTTP_MD = (Path(__file__).parents[2] / "docs" / "http.md").read_text()
DESCRIBED = document()
#: Without its phase of boundary values: conditions hold conditions, and it tries all their combinations. A name may be so long
#: that it is refused by the size of the request's head (431).
API = schemathesis.openapi.from_dict(
    DESCRIBED,
    config=schemathesis.Config.from_dict(
        {
            "phases": {"coverage": {"enabled": False}},
            "checks": {"negative_data_rejection": {"expected-statuses": ["4xx"]}},
        }
    ),
)
#: What a description cannot say: an event that is not as it should be is no bad request but a dead letter; ``to`` lies after
#: ``from``.
TOO_FINE = {
    "events": [negative_data_rejection, positive_data_acceptance],
    "questions": [positive_data_acceptance],
    "saved": [positive_data_acceptance],
}
EVENTS = 600

recent = st.integers(min_value=-86_400, max_value=86_400).map(
    lambda seconds: datetime.fromtimestamp(int(time.time()) // 60 * 60 + seconds, UTC).isoformat()
)
schemathesis.openapi.format("date-time", recent)


@pytest.fixture(scope="module")
def serving(tmp_path_factory):
    with seeded(tmp_path_factory.mktemp("openapi"), EVENTS) as found:
        yield found


def conforms(case, serving):
    """The answer has a described status, type, headers and body; it is no 5xx; another method is refused."""
    tags = case.operation.definition.raw["tags"]
    case.call_and_validate(base_url=serving.url, excluded_checks=TOO_FINE.get(tags[0], []))


@API.parametrize()
@settings(
    max_examples=3, phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck), derandomize=True
)
def test_answers_are_as_described(serving, case):
    conforms(case, serving)


@pytest.mark.soak
@API.parametrize()
@settings(
    max_examples=150, phases=[Phase.explicit, Phase.generate, Phase.shrink], suppress_health_check=list(HealthCheck)
)
def test_answers_to_many_questions_are_as_described(serving, case):
    conforms(case, serving)


def test_a_method_that_is_not_described_is_refused_with_those_that_are(serving):
    for path, operations in DESCRIBED["paths"].items():
        known = {name.upper() for name in operations} - {"PARAMETERS"}
        for method in {"GET", "POST", "PUT", "DELETE", "PATCH"} - known:
            connection = http.client.HTTPConnection(*serving.address)
            connection.request(method, re.sub("{.*?}", "x", path), b"{}", {"Content-Type": "application/json"})
            answer = connection.getresponse()
            assert answer.status == 405, (method, path)
            allowed = {each.strip() for each in answer.headers["Allow"].split(",")}
            assert known <= allowed, (method, path)
            connection.close()


def test_the_document_is_served_to_anyone_and_kept_by_clients(serving):
    status, served = serving.request("GET", PATH)
    assert (status, served) == (200, DESCRIBED)
    assert serving.request("POST", PATH)[0] == 405
    tag = Description().answer(Request("GET", PATH, {}, {}, b"")).headers["ETag"]
    assert serving.request("GET", PATH, If_None_Match=tag) == (304, b"")


def test_every_path_that_is_taken_is_described_and_in_the_docs():
    described = set(DESCRIBED["paths"])
    for prefix in (*FORWARDED, REPLAY):
        assert any(path.startswith(prefix) for path in described), prefix
    assert {path.rpartition("/")[2] for path in described if path.startswith("/v1/query/")} == {*KINDS, SQL}
    for path in described:
        kind = path.rpartition("/")[2]
        assert path in HTTP_MD or (path.startswith("/v1/query/") and kind in HTTP_MD), path


@pytest.mark.parametrize(
    ("kind", "module"),
    [("trends", trends), ("funnel", funnel), ("retention", retention), ("sessions", sessions),
     ("timeline", timeline), ("paths", paths)],
)  # fmt: skip
def test_a_body_has_the_keys_that_are_read(kind, module):
    assert set(questions.KINDS[kind][1]) == set(module._KEYS)


def test_examples_are_what_they_are_examples_of():
    for kind, (_, _, _, example) in questions.KINDS.items():
        schema = {"components": DESCRIBED["components"], "$ref": f"#/components/schemas/{kind.capitalize()}Body"}
        jsonschema_rs.validator_for(schema).validate(example)
    assert set(DESCRIBED["components"]["schemas"]["Status"]["properties"]["ledger"]["properties"]) == set(map(str, Hop))
    letter = DESCRIBED["components"]["schemas"]["Letters"]["properties"]["letters"]["items"]
    assert letter["properties"]["reason"]["enum"] == list(map(str, Reason))
