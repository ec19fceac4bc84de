"""Events that are called otherwise now: how the configuration spells that, and what it means."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eventmill.core.config import load, to_environ
from eventmill.core.errors import ConfigError
from eventmill.core.renames import AS_STORED, Renames
from eventmill.core.retention import rules

GIVEN = {"Opened": "App Opened", "App Opened": "App Start", 'start, = "old"': "App Start", "x": "y"}


def test_chains_lead_to_the_newest_name() -> None:
    renames = Renames.parse(GIVEN)
    assert {name: renames.now(name) for name in ("Opened", "App Opened", "App Start", "never renamed")} == {
        "Opened": "App Start", "App Opened": "App Start", "App Start": "App Start", "never renamed": "never renamed",
    }  # fmt: skip
    all_names = {"Opened", "App Opened", "App Start", 'start, = "old"'}
    for name in all_names:  # whichever of them a question says
        assert renames.stored([name]) == all_names
    assert renames.stored(["y", "z"]) == {"x", "y", "z"}
    assert renames.older("App Opened") == ("Opened",)
    assert set(renames.older("App Start")) == all_names - {"App Start"}
    assert renames.older("Opened") == renames.older("z") == ()
    assert not AS_STORED
    assert AS_STORED.stored(["a"]) == {"a"}


def test_they_are_spelt_in_the_file_and_in_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "eventmill.toml"
    lines = "\n".join(f"{json.dumps(old)} = {json.dumps(new)}" for old, new in GIVEN.items())
    file.write_text(f"[query.renames]\n{lines}\n[retention]\ndownsample_events = ['App Start']\n")
    config = load(file, environ={})
    assert dict(config.query.renames.pairs) == GIVEN
    assert load(environ=to_environ(config)).query == config.query  # as a child process has it
    assert load(environ={"EVENTMILL_QUERY__RENAMES": json.dumps(GIVEN)}).query.renames == config.query.renames
    # A rule about an event is one about all that it was called.
    assert rules(config).names == {"Opened", "App Opened", "App Start", 'start, = "old"'}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ('"a" = "b"\n"b" = "c"\n"c" = "a"', "a -> b -> c -> a"),
        ('"x" = "a"\n"a" = "a"', "a -> a"),
        ('"a" = 3', "'a' must be renamed to an event's name"),
        ('"a" = ""', "'a' must be renamed"),
        ('"" = "a"', "'' must be renamed"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, given: str, told: str) -> None:
    file = tmp_path / "eventmill.toml"
    file.write_text(f"[query.renames]\n{given}\n")
    with pytest.raises(ConfigError, match=r"query\.renames") as refused:
        load(file, environ={})
    assert told in str(refused.value)


@pytest.mark.parametrize("text", ["[1]", "old = new", "{"])
def test_what_is_no_table_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"query\.renames.*must be a"):
        load(environ={"EVENTMILL_QUERY__RENAMES": text})
