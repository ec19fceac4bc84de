"""A real Trino of one node with its Iceberg connector, put together from Maven Central's jars; kept in the cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import orjson

from testbed.jars import fetched
from testbed.packages import Unavailable
from testbed.postgres import Postgres
from testbed.s3 import S3
from testbed.single import SingleServer

VERSION: Final = "483"
_JAVA: Final = 25
#: Left out of the connector: drivers for catalogs and caches that no lake of Eventmill uses, half of its size.
_UNUSED: Final = ("net.snowflake:snowflake-jdbc", "org.rocksdb:rocksdbjni")
_CURE: Final = "connect this machine to Maven Central"
_SERVICE: Final = "services.jar"


def java() -> str:
    """The path of a JVM of version 25 or newer: ``JAVA_HOME``'s, one where Debian puts them, PATH's. Raises Unavailable."""
    homes = [os.environ.get("JAVA_HOME", ""), *map(str, sorted(Path("/usr/lib/jvm").glob("*")))]
    places = [str(Path(home) / "bin" / "java") for home in homes if home] + [shutil.which("java") or ""]
    seen = [version for path in places if (version := _version(path)) is not None]
    for path in places:
        if (_version(path) or 0) >= _JAVA:
            return path
    raise Unavailable(
        f"Trino {VERSION} needs a JDK of version {_JAVA} or newer; there is "
        f"{', '.join(map(str, sorted(set(seen)))) or 'none'}: install one and point JAVA_HOME to it"
    )


def _version(path: str) -> int | None:
    if not path or not Path(path).exists():
        return None
    said = subprocess.run([path, "-version"], capture_output=True, text=True, check=False).stderr
    first = said.partition('"')[2].partition('"')[0].split(".")[0]
    return int(first) if first.isdigit() else None


def _pom(artifact: str, unused: tuple[str, ...] = ()) -> str:
    """With the versions that Trino's own build takes."""
    left_out = "".join(
        f"<exclusion><groupId>{name.split(':')[0]}</groupId><artifactId>{name.split(':')[1]}</artifactId></exclusion>"
        for name in unused
    )
    return (
        "<project><modelVersion>4.0.0</modelVersion>"
        "<groupId>io.eventmill</groupId><artifactId>testbed</artifactId><version>1</version>"
        "<dependencyManagement><dependencies><dependency><groupId>io.trino</groupId><artifactId>trino-root</artifactId>"
        f"<version>{VERSION}</version><type>pom</type><scope>import</scope></dependency></dependencies></dependencyManagement>"
        f"<dependencies><dependency><groupId>io.trino</groupId><artifactId>{artifact}</artifactId><version>{VERSION}</version>"
        f"<exclusions>{left_out}</exclusions></dependency></dependencies></project>"
    )


def _jars() -> tuple[Path, Path]:
    """The folders of the server's jars and of the Iceberg connector's. Raises Unavailable."""
    server = fetched(f"trino-{VERSION}", _pom("trino-main"), _CURE)
    connector = fetched(f"trino-iceberg-{VERSION}", _pom("trino-iceberg", _UNUSED), _CURE)
    if not (connector / _SERVICE).exists():
        # The distribution's build adds what tells the server which class the plug-in is.
        draft = connector / f"{_SERVICE}.{os.getpid()}"
        with zipfile.ZipFile(draft, "w") as jar:
            jar.writestr("META-INF/services/io.trino.spi.Plugin", "io.trino.plugin.iceberg.IcebergPlugin\n")
        draft.rename(connector / _SERVICE)
    return server, connector


def lake_catalog(postgres: Postgres, s3: S3, database: str) -> dict[str, str]:
    """The properties of a catalog that has the lake whose catalog is that database, and whose files lie in that bucket."""
    return {
        "iceberg.catalog.type": "jdbc",
        "iceberg.jdbc-catalog.driver-class": "org.postgresql.Driver",
        "iceberg.jdbc-catalog.connection-url": f"jdbc:postgresql://127.0.0.1:{postgres.port}/{database}",
        "iceberg.jdbc-catalog.connection-user": postgres.user,
        "iceberg.jdbc-catalog.connection-password": postgres.password,
        "iceberg.jdbc-catalog.catalog-name": "eventmill",
        "iceberg.jdbc-catalog.default-warehouse-dir": f"s3://{s3.bucket}/",
        "fs.s3.enabled": "true",
        "s3.endpoint": s3.endpoint,
        "s3.region": "us-east-1",
        "s3.path-style-access": "true",
        "s3.aws-access-key": s3.access_key_id,
        "s3.aws-secret-key": s3.secret_access_key,
    }


class Trino(SingleServer):
    """``catalogs`` are its catalogs' properties by name. It keeps nothing."""

    name = "Trino"

    def __init__(self, catalogs: Mapping[str, Mapping[str, str]], *, heap_mib: int = 1_200) -> None:
        program, (server, connector) = java(), _jars()
        super().__init__()
        (self.folder / "plugins").mkdir()
        (self.folder / "plugins" / "iceberg").symlink_to(connector)
        (self.folder / "catalogs").mkdir()
        for name, properties in catalogs.items():
            _write(self.folder / "catalogs" / f"{name}.properties", {"connector.name": "iceberg", **properties})
        settings = {
            "node.environment": "testbed", "node.id": "testbed", "node.bind-ip": "127.0.0.1",
            "node.internal-address": "127.0.0.1", "coordinator": "true", "node-scheduler.include-coordinator": "true",
            "http-server.http.port": str(self.port), "discovery.uri": self.url,
            "plugin.dir": str(self.folder / "plugins"), "catalog.config-dir": str(self.folder / "catalogs"),
            "query.max-memory": "300MB", "query.max-memory-per-node": "300MB", "memory.heap-headroom-per-node": "200MB",
            "http-server.log.enabled": "false",  # it would be written where it was started
        }  # fmt: skip
        _write(self.folder / "config.properties", settings)
        command = [
            program, f"-Xmx{heap_mib}m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
            "--sun-misc-unsafe-memory-access=allow", "--enable-native-access=ALL-UNNAMED",
            "--add-modules=jdk.incubator.vector", f"-Dconfig={self.folder / 'config.properties'}",
            "-cp", f"{server}/*", str(Path(__file__).parent / "java" / "TrinoServer.java"), VERSION,
        ]  # fmt: skip
        self.serve(command)

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``."""
        return f"http://127.0.0.1:{self.port}"

    def answers(self) -> bool:
        """It has started, and answers now."""
        try:
            with urllib.request.urlopen(f"{self.url}/v1/info", timeout=2) as answer:
                return orjson.loads(answer.read()).get("starting") is False
        except OSError:
            return False

    def ask(self, statement: str) -> list[list[object]]:
        """The rows of a statement, by Trino's protocol itself."""
        return [row for page in self._pages(statement) for row in page.get("data", [])]

    def _pages(self, statement: str) -> Iterator[dict[str, list[list[object]]]]:
        at: str | None = f"{self.url}/v1/statement"
        body: bytes | None = statement.encode()
        while at is not None:
            request = urllib.request.Request(at, body, {"X-Trino-User": "testbed"})
            with urllib.request.urlopen(request, timeout=60) as answer:
                page = orjson.loads(answer.read())
            if "error" in page:
                raise RuntimeError(page["error"]["message"])
            yield page
            at, body = page.get("nextUri"), None


def _write(path: Path, properties: Mapping[str, str]) -> None:
    path.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
    path.chmod(0o600)
