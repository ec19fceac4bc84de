"""Fixtures that several test files share; its place puts ``tests/`` on the import path."""

from __future__ import annotations

import os
import sys

import pytest
from hypothesis import settings
from tests.needs import had

from house import House
from serving import Serving
from testbed.clickhouse import ClickHouse
from testbed.kafka import Kafka
from testbed.postgres import Postgres
from testbed.redis import Redis
from testbed.rest_catalog import RestCatalog
from testbed.s3 import S3
from testbed.spark import iceberg_jar

# How long an example takes is the machine's affair.
settings.register_profile("eventmill", deadline=None)
settings.load_profile("eventmill")


def pytest_collection_modifyitems(items):
    """Where several workers run the tests, those of a file stay together, and so do all that use the brokers: first."""
    of_brokers = {item for item in items if "kafka_cluster" in item.fixturenames}
    items.sort(key=lambda item: item not in of_brokers)
    for item in items:
        item.add_marker(pytest.mark.xdist_group("brokers" if item in of_brokers else item.path.name))


def pytest_make_parametrize_id(config, val, argname):
    """Bytes go by their length where they aren't short and plain: what a compressor writes must not name a test."""
    if isinstance(val, bytes) and (len(val) > 24 or not val.isascii()):
        return f"{argname}-{len(val)}-bytes"
    return None


def _had(server):
    """The server, started; without it the tests are skipped, in CI they fail."""
    return had(lambda: server().__enter__())


@pytest.fixture(scope="session")
def kafka_cluster():
    """Three brokers for the whole run; ``kafka`` is the fixture to use. A dead one is given up after 4 s, not 9."""
    cluster = _had(lambda: Kafka(settings={"broker.session.timeout.ms": "4000", "broker.heartbeat.interval.ms": "500"}))
    yield cluster
    cluster.close()


@pytest.fixture
def kafka(kafka_cluster):
    """Three brokers (replication factor 3, min.insync.replicas 2), whole again after each test."""
    yield kafka_cluster
    kafka_cluster.mend()


@pytest.fixture
def house(kafka, tmp_path):
    """The roles apart on the three brokers, not started."""
    made = House(kafka, tmp_path)
    yield made
    for role in made.roles.values():
        role.server.kill()


@pytest.fixture(scope="session")
def redis_server():
    """A Redis for the whole run; ``redis`` is the fixture to use."""
    server = _had(Redis)
    yield server
    server.close()


@pytest.fixture
def redis(redis_server):
    """A Redis that runs and is empty at the beginning of each test."""
    redis_server.mend()
    redis_server.empty()
    return redis_server


@pytest.fixture(scope="session")
def s3_server():
    """An S3 server for the whole run; ``s3`` is the fixture to use."""
    server = _had(S3)
    yield server
    server.close()


@pytest.fixture
def s3(s3_server):
    """An S3 server that runs at the beginning of each test; each test takes a prefix of its own."""
    s3_server.mend()
    return s3_server


@pytest.fixture
def postgres():
    """An empty PostgreSQL."""
    server = _had(Postgres)
    yield server
    server.close()


@pytest.fixture
def rest_catalog():
    """An empty Iceberg REST catalog."""
    server = _had(RestCatalog)
    yield server
    server.close()


@pytest.fixture(scope="session")
def clickhouse_server():
    """A ClickHouse server for the whole run; ``clickhouse`` is the fixture to use."""
    server = _had(ClickHouse)
    yield server
    server.close()


@pytest.fixture
def clickhouse(clickhouse_server):
    """The URL of a ClickHouse server that runs at the beginning of each test."""
    clickhouse_server.start()
    return clickhouse_server.url


@pytest.fixture(scope="session")
def spark(tmp_path_factory):
    """A Spark of two threads with Iceberg's runtime, for the whole run."""
    jar = had(iceberg_jar)
    sql = pytest.importorskip("pyspark.sql", reason="pyspark is missing: pip install 'eventmill[spark]'")
    os.environ["PYSPARK_PYTHON"] = sys.executable  # the executors' Python has Eventmill installed too
    session = (
        sql.SparkSession.builder.master("local[2]")
        .config("spark.jars", str(jar))
        .config("spark.ui.enabled", "false")
        .config("spark.driver.memory", "1g")
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.local.dir", str(tmp_path_factory.mktemp("spark")))
        .getOrCreate()
    )
    yield session
    session.stop()


@pytest.fixture
def serve(tmp_path):
    """Starts ``eventmill serve`` processes; all are ended with the test."""
    running: list[Serving] = []

    def start(*arguments: str, data=None, **environ: str) -> Serving:
        running.append(Serving(data or tmp_path / "data", *arguments, **environ))
        return running[-1]

    yield start
    for one in running:
        one.kill()
