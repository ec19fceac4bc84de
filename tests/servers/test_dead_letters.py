"""Dead letters, backfill and schema checks on three real brokers, roles apart: what the embedded log does, Kafka does too."""

from __future__ import annotations

import contextlib

import orjson
import pyarrow as pa
import pytest

from eventmill.core import frame, groups
from eventmill.core.errors import EventmillError
from eventmill.core.schema import DEAD, Topic
from eventmill.log.kafka.log import KafkaLog
from eventmill.process.replay import Patch, Rules, Wanted, replay_dead
from house import PARTITIONS
from serving import eventmill, eventually

STRICT = {"type": "object", "required": ["price"], "properties": {"price": {"type": "number", "minimum": 0}}}


def letters(config):
    with contextlib.closing(KafkaLog(config)) as log:
        begin, end = log.committed(groups.REPLAY, Topic.DEAD, 0), log.end_offset(Topic.DEAD, 0)
        return frame.decode_all(
            log.read(Topic.DEAD, 0, begin, events_max=1 << 30, to_offset=end) if begin < end else [], DEAD
        ).to_pylist()


@pytest.mark.soak
def test_mended_letters_come_back_once_and_raw_is_processed_anew(house):
    house.start()
    house.send(0, *range(10), "10", "11", -12)
    house.settle()
    (house.folder / "strict.json").write_bytes(orjson.dumps(STRICT))
    checked = orjson.loads(
        house.command("schema", "check", house.folder / "strict.json", "--event", "purchase", "--json", code=1)
    )
    assert (checked["events"], checked["rejected"]) == (13, 3)  # of all partitions
    house.command("schema", "publish", house.folder / "strict.json", "--event", "purchase")
    number = iter(range(1_000, 100_000, 60))

    def judged():
        """Every partition's processor has the schema: of enough devices each gets one."""
        first = next(number)
        house.send(first, *["x"] * 60)
        house.settle()
        return not {f"m{n}" for n in range(first, first + 60)} & set(house.stored())

    eventually(judged)
    house.send(20, 20, "21", "22", -23)
    before = house.settle()["stores"]["lake"]["stored"]
    found = {letter["event_id"]: letter for letter in letters(house.config)}
    assert {letter["raw_partition"] for letter in found.values()} == set(range(PARTITIONS))
    assert all(letter["raw_offset"] >= 0 and letter["stage"] == "validate" for letter in found.values())
    patch = ("--patch", '.properties.price |= if . == "x" then . else tonumber end')
    dry = orjson.loads(house.command("replay", "--dead", "--dry-run", *patch, "--json"))
    assert (dry["read"], dry["replayed"]) == (len(found), 2)
    done = orjson.loads(house.command("replay", "--dead", "--since", "1h", "--reason", "schema", *patch, "--json"))
    assert done == dry
    audit = house.settle()
    assert audit["stores"]["lake"]["stored"] == audit["stores"]["realtime"]["stored"] == before + 2
    assert {name: house.stored()[name] for name in ("m20", "m21", "m22")} == {"m20": 20, "m21": 21, "m22": 22}
    again = orjson.loads(house.command("replay", "--dead", *patch, "--json"))
    assert (again["read"], again["replayed"]) == (len(found) - 2, 0)
    # The sink replays as well (the dashboard asks it to), under the same name.
    assert house.ask("sink", "POST", "/v1/replay", {"reasons": ["schema"]})["still_dead"] == len(found) - 2
    house.settle()
    fresh = house.folder / "fresh"
    report = orjson.loads(house.command("replay", "--raw", "--since", "1h", "--into", fresh, "--json"))
    # Those that were put back stand in raw twice more: the filter had seen their ids, so the look-up has put them back again.
    assert report["events"] == audit["received"] + 2 * done["replayed"]
    anew = orjson.loads(eventmill("audit", "--data", str(fresh), "--json").stdout)
    assert anew["balanced"], anew
    # Today's schema refuses the three that came before it was published.
    assert anew["stores"]["lake"]["stored"] == before + 2 - 3
    assert orjson.loads(house.command("trace", "m21", "--json"))["fate"] == "stored"


@pytest.mark.parametrize("moment", ["before it looks whether it is alone", "after that"])
def test_of_two_replays_at_once_one_is_an_error_and_each_letter_comes_back_once(house, moment):
    """The second begins when the first has read what it will put back, the worst moments."""
    config = house.config
    letter = {
        "reason": "schema", "detail": "d", "received_at": 1_795_000_000_000, "stage": "validate",
        "payload": b'{"type":"track","event":"e","userId":"u","messageId":"m"}',
    }  # fmt: skip
    with contextlib.ExitStack() as stack:
        first, second, processor = (
            stack.enter_context(contextlib.closing(KafkaLog(config, name=name))) for name in ("replay", "replay", "p")
        )
        with processor.transaction() as transaction:
            transaction.append([frame.encode(Topic.DEAD, pa.RecordBatch.from_pylist([letter], DEAD))])
        rules, put_back = Rules(config.ingest, config.http, patch=Patch(".")), []
        transaction_of, committed_of, looks = first.transaction, first.committed, []

        def other():
            put_back.append(replay_dead(second, rules, Wanted()).replayed)

        def transaction():
            if moment.startswith("before"):
                other()
            return transaction_of()

        def committed(*place):
            found = committed_of(*place)
            looks.append(found)
            if len(looks) == 2 and moment.startswith("after"):
                other()
            return found

        first.transaction, first.committed = transaction, committed
        with pytest.raises(EventmillError, match="another"):
            replay_dead(first, rules, Wanted())
        assert put_back == [1]
        ends = {each: second.next_offset(Topic.RAW, each) for each in range(PARTITIONS)}
        found = [
            stored
            for each, end in ends.items()
            for stored in (second.read(Topic.RAW, each, 0, events_max=9, to_offset=end) if end else [])
        ]
        assert sum(stored.events for stored in found) == 1
