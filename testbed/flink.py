"""Apache Flink's jars from Maven Central, and SQL run on them in one process of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from testbed.jars import fetched, java

VERSION: Final = "2.0.0"
_CONNECTOR: Final = "4.0.1-2.0"
_ARTIFACTS: Final = (
    "flink-clients", "flink-table-api-java-bridge", "flink-table-planner-loader", "flink-table-runtime",
    "flink-connector-base", "flink-json",
)  # fmt: skip
_DEPENDENCY: Final = (
    "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version></dependency>"
)
#: What Flink's own scripts open to it on Java 17.
_OPEN: Final = ("lang", "lang.invoke", "lang.reflect", "math", "net", "nio", "text", "time", "util", "util.concurrent")


def _pom() -> str:
    flink = "org.apache.flink"
    wanted = [(flink, artifact, VERSION) for artifact in _ARTIFACTS]
    wanted.append((flink, "flink-sql-connector-kafka", _CONNECTOR))
    wanted.append(("org.apache.logging.log4j", "log4j-slf4j-impl", "2.25.5"))
    lines = [_DEPENDENCY.format(group=group, artifact=artifact, version=version) for group, artifact, version in wanted]
    return (
        "<project><modelVersion>4.0.0</modelVersion>"
        "<groupId>io.eventmill</groupId><artifactId>testbed</artifactId><version>1</version>"
        f"<dependencies>{''.join(lines)}</dependencies></project>"
    )


def command(script: Path, settings: Mapping[str, str], *, heap_mib: int) -> list[str]:
    """A command that runs the SQL statements of a file, each to its end, on a cluster within its process.

    Raises testbed.packages.Unavailable without a JDK or the jars.
    """
    program = java()
    jars = fetched(f"flink-{VERSION}", _pom(), "connect this machine to Maven Central or leave out the peers")
    opened = [f"--add-opens=java.base/java.{name}=ALL-UNNAMED" for name in _OPEN]
    return [
        program, f"-Xmx{heap_mib}m", *opened, "-Dlog4j2.level=ERROR", "-cp", f"{jars}/*",
        str(Path(__file__).with_name("FlinkSql.java")), str(script),
        *(f"{name}={value}" for name, value in settings.items()),
    ]  # fmt: skip
