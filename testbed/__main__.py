"""Servers in the foreground, for developers: ``python -m testbed kafka``, ``redis`` or ``s3``; Ctrl-C ends them."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence

from testbed.kafka import Kafka
from testbed.packages import Unavailable
from testbed.redis import Redis
from testbed.s3 import S3


def main(arguments: Sequence[str] | None = None) -> int:
    """Start one, print its address, wait for SIGINT or SIGTERM, remove it."""
    parser = argparse.ArgumentParser(prog="python -m testbed", description=__doc__)
    servers = parser.add_subparsers(dest="server", required=True)
    kafka = servers.add_parser("kafka", help="Apache Kafka, KRaft")
    kafka.add_argument("--nodes", type=int, default=3, choices=(1, 3), help="3: replicated, 1: not (default: 3)")
    kafka.add_argument("--heap-mib", type=int, default=384, help="memory of each node's heap (default: 384)")
    servers.add_parser("redis", help="Redis, in memory only")
    servers.add_parser("s3", help="S3 (versitygw), with a bucket called lake")
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if given.server == "redis":
            with Redis() as redis:
                print(f"EVENTMILL_REDIS__URL={redis.url}", flush=True)
                signal.pause()
        elif given.server == "s3":
            with S3() as s3:
                print(*(f"{name}={value}" for name, value in s3.environ("").items()), sep="\n", flush=True)
                signal.pause()
        else:
            with Kafka(given.nodes, heap_mib=given.heap_mib) as cluster:
                print(f"bootstrap.servers={cluster.bootstrap}", flush=True)
                signal.pause()
    except KeyboardInterrupt:
        return 0
    except Unavailable as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
