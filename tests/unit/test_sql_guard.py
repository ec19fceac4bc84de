"""What the first wall round somebody else's SQL does that cannot be seen from outside."""

from __future__ import annotations

import subprocess
import sys

#: A new process, in which whoever registers a dialect is overtaken by the next thread before the class is complete.
_AT_ONCE = """
import threading, time
from concurrent.futures import ThreadPoolExecutor
from sqlglot.dialects.dialect import Dialect
from eventmill.query import sql, trino_select

class Slow(dict):
    def __setitem__(self, name, made):
        super().__setitem__(name, made)
        time.sleep(0.3)

type(Dialect)._classes = Slow(type(Dialect)._classes)
start = threading.Barrier(8)

def ask(number):
    start.wait()
    time.sleep(number * 0.15)
    parsed = sql.parse("SELECT {a:Int64} FROM events").parameters
    at = "SELECT event FROM lake.events WHERE timestamp < '2026-05-27T12:00:00Z'"
    return sorted(parsed), "TIMESTAMP(3)" in trino_select.translated(at, {}, "lake")

with ThreadPoolExecutor(8) as pool:
    print(list(pool.map(ask, range(8))))
"""


def test_the_first_questions_after_a_start_may_come_at_once() -> None:
    done = subprocess.run([sys.executable, "-c", _AT_ONCE], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str([(["a"], True)] * 8), done.stderr
