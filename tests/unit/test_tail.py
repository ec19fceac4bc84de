"""The tail gives what the log would give, or nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from eventmill.core.tail import StoredBatch, Tail


def stored(offset, rows):
    return StoredBatch(offset, pa.record_batch({"n": [offset] * rows}))


@dataclass
class Log:
    """All that was ever appended, by offset."""

    rows: dict[int, int] = field(default_factory=dict)

    def read(self, begin, events_max):
        taken = []
        events = 0
        for offset in sorted(self.rows):
            if offset >= begin and events < events_max:
                taken.append(offset)
                events += self.rows[offset]
        return taken


steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.lists(st.integers(1, 4), min_size=1, max_size=3)),
        st.tuples(st.just("gap"), st.integers(1, 3)),
        st.tuples(st.just("read"), st.sampled_from("ab"), st.integers(1, 9)),
        st.tuples(st.just("back"), st.sampled_from("ab"), st.integers(0, 9)),
    ),
    max_size=40,
)


@given(steps, st.integers(1, 200))
def test_readers_get_a_prefix_of_what_the_log_holds(what, bytes_max):
    tail, log, positions, end = Tail("ab", bytes_max=bytes_max), Log(), dict.fromkeys("ab", 0), 0
    for kind, *values in what:
        if kind == "append":
            batches = [stored(end + number, rows) for number, rows in enumerate(values[0])]
            log.rows |= {batch.offset: batch.events.num_rows for batch in batches}
            end += len(batches)
            tail.append(batches)
        elif kind == "gap":  # another processor wrote those, so the tail never saw them
            log.rows |= {end + number: 1 for number in range(values[0])}
            end += values[0]
        elif kind == "back":  # a sink that starts over asks for what it had before
            positions[values[0]] = min(positions[values[0]], values[1])
        else:
            group, events_max = values
            taken = tail.read(group, positions[group], events_max=events_max)
            expected = log.read(positions[group], events_max)
            assert [batch.offset for batch in taken] == expected[: len(taken)]
            assert all(batch.events.num_rows == log.rows[batch.offset] for batch in taken)
            if taken:
                positions[group] = taken[-1].offset + 1


def test_what_all_have_passed_is_let_go():
    tail = Tail("ab")
    tail.append([stored(0, 5), stored(1, 5)])
    assert [batch.offset for batch in tail.read("a", 0, events_max=5)] == [0]
    assert [batch.offset for batch in tail.read("a", 1, events_max=50)] == [1]
    assert [batch.offset for batch in tail.read("b", 1, events_max=50)] == [1]
    assert tail.read("b", 0, events_max=50) == []


def test_more_bytes_than_allowed_push_the_oldest_out():
    tail = Tail("a", bytes_max=100)
    tail.append(stored(offset, 6) for offset in range(4))  # 48 bytes each
    assert tail.read("a", 0, events_max=100) == []
    assert [batch.offset for batch in tail.read("a", 2, events_max=100)] == [2, 3]
