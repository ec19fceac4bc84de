"""Tombstones: the list over columns says what each tombstone says of each row, and nothing of anybody's id."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from eventmill.core.schema import TIME, WORD
from eventmill.core.tombstones import Tombstone, Tombstones, digest, record, recorded
from eventmill.log.local import LocalLog

_TIMES = st.integers(0, 40)
_USERS = st.sampled_from([None, "a", "b", "\u00e4 c"])
_NAMES = st.sampled_from(["open", "close", "start"])
_ROWS = st.lists(st.tuples(_USERS, _NAMES, _TIMES, _TIMES), max_size=30)
_WANTED = st.tuples(_TIMES, _USERS, st.lists(_NAMES, max_size=2), st.none() | _TIMES, st.none() | _TIMES)


def tombstone(wanted: tuple) -> Tombstone:
    before, user, events, begin, end = wanted
    event, *older = events or [None]
    return Tombstone("id", before, None if user is None else digest(user), event, begin, end, older)


def covered(row: tuple, wanted: tuple) -> bool:
    """The slow twin: one row, one condition after the other."""
    user, event, happened, received = row
    before, of_user, of_events, begin, end = wanted
    if not (happened < before or received < before):
        return False
    if of_user is not None and user != of_user:
        return False
    if of_events and event not in of_events:
        return False
    return (begin is None or happened >= begin) and (end is None or happened < end)


@given(_ROWS, st.lists(_WANTED, max_size=4))
def test_the_mask_is_that_of_its_slow_twin(rows: list[tuple], wanted: list[tuple]) -> None:
    columns = list(zip(*rows, strict=True)) or [()] * 4
    kinds = (pa.string(), WORD, TIME, TIME)
    names = ("user_id", "event", "timestamp", "received_at")
    arrays = [
        pa.array(column, pa.string()).cast(kind) if kind == WORD else pa.array(column, kind)
        for column, kind in zip(columns, kinds, strict=True)
    ]
    table = pa.Table.from_arrays(arrays, names)
    mask = Tombstones(map(tombstone, wanted)).mask(table)
    found = [False] * len(rows) if mask is None else mask.tolist()
    assert found == [any(covered(row, each) for each in wanted) for row in rows]


def test_the_log_keeps_them_and_names_no_user(tmp_path) -> None:
    log = LocalLog(tmp_path)
    wanted = Tombstone("1", 5, digest("secret user"), "open", older=["start"])
    try:
        assert recorded(log).tombstones == []
        frames = [record(wanted), record(wanted, {"rows": 3})]
        with log.transaction() as transaction:
            transaction.append(frames)
        assert (recorded(log).tombstones, recorded(log).counted) == ([wanted], {"1": {"rows": 3}})
        assert all(b"secret" not in bytes(each.payload) for each in frames)
    finally:
        log.close()
