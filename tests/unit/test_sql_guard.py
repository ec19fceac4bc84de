"""What the first wall round somebody else's SQL does that cannot be seen from outside."""

from __future__ import annotations

import subprocess
import sys

#: A new process, in which whoever registers a dialect is overtaken by the next thread before the class is complete.
_AT_ONCE = """
import threading, time
from concurrent.futures import ThreadPoolExecutor
from sqlglot.dialects.dialect import Dialect
from eventmill.query import sql

class Slow(dict):
    def __setitem__(self, name, made):
        super().__setitem__(name, made)
        time.sleep(0.2)

type(Dialect)._classes = Slow(type(Dialect)._classes)
start = threading.Barrier(4)

def ask(number):
    start.wait()
    time.sleep(number * 0.02)
    return sorted(sql.parse("SELECT {a:Int64} FROM events").parameters)

with ThreadPoolExecutor(4) as pool:
    print(list(pool.map(ask, range(4))))
"""


def test_the_first_questions_after_a_start_may_come_at_once() -> None:
    done = subprocess.run([sys.executable, "-c", _AT_ONCE], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str([["a"]] * 4), done.stderr
