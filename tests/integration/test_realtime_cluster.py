"""The cluster's form of the tables, as far as one engine can judge it: its parser, and its own idea of what a view feeds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner

from eventmill.cli.main import main
from eventmill.core.errors import ConfigError, StoreError
from eventmill.core.typed import Kind, Typed, TypedProperty
from eventmill.sinks.realtime import ddl, migrations
from eventmill.sinks.realtime.clients import Clients
from eventmill.sinks.realtime.server import parse_url
from eventmill.sinks.realtime.shape import Shape
from realtime_server import store_on

CLUSTER = Shape(cluster="analytics")
TYPED = Typed.of([TypedProperty("price", Kind.NUMBER, ("it's", "tap")), TypedProperty("kind", Kind.WORD, ("tap",))])
STATEMENTS = [
    CLUSTER.database(),
    *CLUSTER.create(migrations.APPLIED),
    *(statement for each in migrations.MIGRATIONS for statement in each.statements(CLUSTER)),
    *ddl.attach_views(CLUSTER, TYPED),
    *ddl.detach_views(CLUSTER),
]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    with closing(Clients(tmp_path_factory.mktemp("parser"))) as clients:
        yield clients


@pytest.mark.parametrize("number", range(len(STATEMENTS)))
def test_the_engines_parser_takes_it(engine: Clients, number: int) -> None:
    spelt = engine.query("SELECT formatQuerySingleLine({sql:String})", {"sql": STATEMENTS[number]}).column(0)[0].as_py()
    assert "ON CLUSTER analytics" in spelt.replace("'", "")


def test_a_broken_statement_would_be_seen(engine: Clients) -> None:
    """Negative control."""
    with pytest.raises(StoreError, match="Syntax error"):
        engine.query("SELECT formatQuerySingleLine({sql:String})", {"sql": STATEMENTS[1].replace("ORDER BY", "ORDER")})


def test_every_table_is_replicated_and_has_one_over_all_shards() -> None:
    made = [each for each in STATEMENTS if each.startswith("CREATE TABLE")]
    tables = [ddl.EVENTS_TABLE, migrations.APPLIED, *(each.table for each in (*ddl.FIXED, *ddl.NUMBERS))]
    for table in tables:
        local = next(each for each in made if f" {table.full_name}_local " in each and "Replicated" in each)
        path = f"('/clickhouse/tables/{{shard}}/eventmill/{table.name}', '{{replica}}')"
        assert f"ENGINE = Replicated{table.engine}{path}" in local
        over = next(each for each in made if f" {table.full_name} ON CLUSTER" in each)
        assert f"Distributed('analytics', 'eventmill', '{table.name}_local'" in over
    events = next(each for each in made if " eventmill.events ON CLUSTER" in each)
    assert events.endswith("cityHash64(device_id))")


def test_no_two_tables_have_one_place_in_the_keeper() -> None:
    """The Keeper would refuse the second one."""
    replicated = {
        each.split(" ON CLUSTER")[0]: each.partition("Replicated")[2] for each in STATEMENTS if "Replicated" in each
    }
    places = [found.partition("('")[2].partition("'")[0] for found in replicated.values()]
    assert len(places) == len(set(places)) > 8


def test_views_stay_on_their_server() -> None:
    for view in ddl.attach_views(CLUSTER, TYPED):
        target = view.partition(" TO ")[2].split()[0]
        assert target.endswith("_local")
        assert "FROM eventmill." in view
        names = [name for name in view.split() if name.startswith("eventmill.") and "_view" not in name]
        assert names
        assert all(name.rstrip(")").endswith("_local") for name in names)


@pytest.mark.parametrize(
    "url",
    ["", "http://host:8123", "clickhouse://", "clickhouse://u:hunter2@host/other", "clickhouse://u:hunter2@host:x",
     "clickhouse://u:hunter2@host?secure=1"],
)  # fmt: skip
def test_what_is_no_address_is_told_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError, match="clickhouse://user:password@host:8123") as told:
        parse_url(url)
    assert "hunter2" not in str(told.value)


def test_an_address_shows_no_password() -> None:
    found = parse_url("clickhouses://me:hunter%402@host")
    assert (found.interface, found.port, found.password) == ("https", 8443, "hunter@2")
    assert "hunter" not in repr(found) + found.shown


def run(*arguments: str, **environ: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["schema", *arguments], env=environ)
    return result.exit_code, result.output


def test_apply_and_diff_on_a_server(clickhouse: str) -> None:
    store_on(clickhouse)  # which leaves it empty
    asked = {"EVENTMILL_REALTIME__URL": clickhouse}
    status, told = run("diff", "--json", **asked)
    assert status == 1
    assert [each["version"] for each in orjson.loads(told)["pending"]] == [
        each.version for each in migrations.MIGRATIONS
    ]
    for expected in ("version 1: events, minutes, sessions", "the tables are of version"):
        status, told = run("apply", **asked)
        assert status == 0
        assert expected in told
    assert run("diff", **asked) == (0, "nothing is missing\n")


def test_the_whole_ddl_without_a_store(tmp_path: Path) -> None:
    status, told = run("diff", "--all", "--cluster", "analytics", "--data", str(tmp_path))
    assert status == 0
    assert told.splitlines() == [f"{statement};" for statement in STATEMENTS[: told.count("\n")]]
    assert "Distributed" in told


def test_a_cluster_without_a_server(tmp_path: Path) -> None:
    status, told = run("diff", "--cluster", "analytics", "--data", str(tmp_path))
    assert status == 2
    assert "realtime.url" in told


def test_a_folder_without_a_store(tmp_path: Path) -> None:
    status, told = run("apply", "--data", str(tmp_path))
    assert status == 2
    assert "no data folder" in told
