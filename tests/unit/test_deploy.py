"""What is deployed is what exists: compose file, commands, settings, metrics, alerts."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import chdb
import pytest
import yaml
from prometheus_client import REGISTRY
from tests.needs import had

from eventmill.cli.main import COMMANDS
from eventmill.core import config
from eventmill.observe import metrics
from eventmill.sinks.realtime.server import parse_url
from testbed.packages import program

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
ALERTS = DEPLOY / "prometheus" / "alerts.yml"
COMPOSE = {path.name: yaml.safe_load(path.read_text()) for path in sorted(DEPLOY.glob("compose*.yaml"))}


def ours(compose):
    return {name: one for name, one in compose["services"].items() if str(one.get("image", "")).startswith("eventmill")}


@pytest.fixture(scope="module")
def promtool():
    path = had(lambda: program("promtool", "prometheus"))
    return lambda *arguments: subprocess.run([path, *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("file", COMPOSE)
def test_a_compose_file_fits_the_compose_specification(file):
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", DEPLOY / file],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", COMPOSE)
def test_our_services_run_commands_and_settings_that_exist(file):
    assert ours(COMPOSE[file])
    for name, service in ours(COMPOSE[file]).items():
        command = service["command"]
        assert command[0] in COMMANDS, name
        given = {key: str(value) for key, value in service.get("environment", {}).items()}
        config.load(environ=given)  # raises where a section, a key or a value is none of ours
        assert all(key.startswith(config.ENV_PREFIX) for key in given), name


@pytest.mark.parametrize("file", COMPOSE)
def test_volumes_and_dependencies_are_declared(file):
    compose = COMPOSE[file]
    for name, service in compose["services"].items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in compose["volumes"] or (DEPLOY / source).exists(), f"{name}: {source}"
        for other, until in service.get("depends_on", {}).items():
            ends = until == {"condition": "service_completed_successfully"}
            assert ends or "healthcheck" in compose["services"][other], f"{name} waits for {other}"


def test_roles_on_kafka_know_the_addresses_and_keys_of_what_they_use():
    services = COMPOSE["compose.kafka.yaml"]["services"]
    sink, clickhouse, s3 = (services[name] for name in ("sink", "clickhouse", "s3"))
    configured = config.load(environ={key: str(value) for key, value in sink["environment"].items()})
    store = parse_url(configured.realtime.url)
    server = clickhouse["environment"]
    assert (store.host, store.user, store.password) == (
        "clickhouse", server["CLICKHOUSE_USER"], server["CLICKHOUSE_PASSWORD"],
    )  # fmt: skip
    lake = configured.lake
    keys = lake.access_key_id, lake.secret_access_key
    assert keys == (s3["environment"]["ROOT_ACCESS_KEY"], s3["environment"]["ROOT_SECRET_KEY"])
    assert keys == (server["AWS_ACCESS_KEY_ID"], server["AWS_SECRET_ACCESS_KEY"])
    hosts = [urlsplit(configured.dimensions.redis).hostname, urlsplit(lake.endpoint).hostname]
    assert {*hosts, *(address.split(":")[0] for address in configured.kafka.bootstrap)} <= set(services)
    assert services["tables"]["command"] == ["schema", "apply"]
    assert sink["depends_on"]["tables"] == {"condition": "service_completed_successfully"}


def test_the_server_is_of_the_version_that_is_tested():
    image = COMPOSE["compose.kafka.yaml"]["services"]["clickhouse"]["image"]
    assert f"{chdb.engine_version}.".startswith(f"{image.split(':')[1]}.")


@pytest.mark.parametrize(
    ("file", "compose"), [("prometheus.yml", "compose.yaml"), ("prometheus.kafka.yml", "compose.kafka.yaml")]
)
def test_prometheus_takes_its_configuration(promtool, file, compose):
    path = DEPLOY / "prometheus" / file
    done = promtool("check", "config", path)
    assert done.returncode == 0, done.stdout + done.stderr
    (scrape,) = yaml.safe_load(path.read_text())["scrape_configs"]
    targets = [target.removesuffix(":8080") for one in scrape.get("static_configs", []) for target in one["targets"]]
    targets += [name for one in scrape.get("dns_sd_configs", []) for name in one["names"]]
    assert set(targets) <= set(ours(COMPOSE[compose]))


def test_alerts_fire_when_they_should_and_only_then(promtool):
    done = promtool("test", "rules", DEPLOY / "prometheus" / "alerts.test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_weaker_alert_would_not_pass(promtool, tmp_path):
    """Negative control: one that waits for ten minutes of lag fails its test."""
    (tmp_path / "alerts.yml").write_text(ALERTS.read_text().replace("> 300", "> 600"))
    (tmp_path / "alerts.test.yml").write_text((DEPLOY / "prometheus" / "alerts.test.yml").read_text())
    assert promtool("test", "rules", tmp_path / "alerts.test.yml").returncode != 0


def metrics_that_exist():
    assert metrics.LAG_SECONDS is not None  # imported, so registered
    return [family for family in REGISTRY.collect() if family.name.startswith("eventmill_")]


def test_every_metric_and_alert_is_documented():
    text = (ROOT / "docs" / "deploy.md").read_text()
    for family in metrics_that_exist():
        assert f"`{family.name}{'_total' if family.type == 'counter' else ''}`" in text
    for name in re.findall(r"alert: (\w+)", ALERTS.read_text()):
        assert f"`{name}`" in text


def test_every_metric_that_is_watched_exists():
    exist = set()
    for family in metrics_that_exist():
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}.get(family.type, [""])
        exist |= {family.name + suffix for suffix in suffixes}
    dashboard = json.loads((DEPLOY / "grafana" / "dashboards" / "eventmill.json").read_text())
    shown = " ".join(target["expr"] for panel in dashboard["panels"] for target in panel["targets"])
    for text in (ALERTS.read_text(), shown):
        watched = set(re.findall(r"\beventmill_[a-z_]+", text))
        assert watched
        assert watched <= exist


def test_every_alert_is_tested():
    rules = {rule["alert"] for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]}
    tests = yaml.safe_load((DEPLOY / "prometheus" / "alerts.test.yml").read_text())["tests"]
    fired = {c["alertname"] for test in tests for c in test["alert_rule_test"] if c.get("exp_alerts")}
    assert rules == fired
