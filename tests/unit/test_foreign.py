"""Messages of others that are decoded together give what each gives alone, whatever stands beside them."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.foreign_messages import AT, one_by_one, places, reread, together

from eventmill._native.decode import Decoder
from eventmill.core import frame, ledger
from eventmill.core.config import Config, DedupConfig, load
from eventmill.core.errors import BodyError
from eventmill.core.log import Count
from eventmill.core.redact import Redaction
from eventmill.core.schema import DEAD, EVENT, LOGGED, RAW, REJECT, Flag, Hop, Reason, Topic
from eventmill.log.kafka import foreign as module
from eventmill.log.kafka import member as member_module
from eventmill.log.kafka import messages
from eventmill.log.kafka.foreign import Foreign
from eventmill.process.dedup import Dedup, build_filter
from eventmill.process.letters import of_foreign
from eventmill.process.partition import PartitionState
from eventmill.process.pipeline import build_stages
from eventmill.process.placing import placed

PARTITIONS = 3
CONFIG = Config(dedup=DedupConfig(capacity=10_000))
HOUR_MS = 3_600_000


def event(n, **more):
    return {"type": "track", "event": f"e{n % 3}", "userId": f"u{n % 7}", "messageId": f"m{n}"} | more


numbers = st.integers(0, 40)  # so few that there are retries
good = numbers.map(event)
events = st.one_of(
    good,
    good.map(lambda one: one | {"timestamp": "2026-11-23T02:13:19.123Z", "sentAt": "2026-11-23T02:13:20Z"}),
    good.map(lambda one: {name: value for name, value in one.items() if name != "messageId"}),  # gets a derived id
    numbers.map(lambda n: event(n, properties={"word": '\u00e9\\"' * n}, context={"app": {"version": f"1.{n}"}})),
    numbers.map(lambda n: {"type": "identify", "anonymousId": f"a{n}", "traits": {"n": n}, "messageId": f"i{n}"}),
    numbers.map(lambda n: {"type": "nope", "userId": f"u{n}"}),
    numbers.map(lambda n: {"type": "track", "event": "no identity", "n": n}),
    numbers.map(lambda n: event(n, event="long" * 100)),
    numbers.map(lambda n: event(n, properties={"large": "x" * 33_000})),
    st.sampled_from([1, None, [], "text", {}]),
)
bodies = st.one_of(
    events.map(orjson.dumps),
    events.map(orjson.dumps),
    st.lists(events, max_size=6).map(lambda batch: orjson.dumps({"batch": batch, "sentAt": "2026-11-23T02:13:20Z"})),
    st.lists(good, min_size=1, max_size=6).map(
        lambda batch: orjson.dumps({"context": {"app": {"version": "7"}}, "batch": batch, "other": 1})
    ),
    st.lists(good, min_size=2, max_size=3).map(lambda batch: b",".join(map(orjson.dumps, batch))),
    good.map(lambda one: orjson.dumps(one)[:-5]),
    st.sampled_from(
        [
            b"",
            b" ",
            b"no JSON at all",
            b"\xff\xfe",
            b"\xef\xbb\xbf{}",
            b"null",
            b"[1]",
            b"{}",
            b"]}",
            b'{"batch":[]}',
            b'{"batch":1}',
            b"[" * 2_000,
            b'{"type":"track"}{"type":"track"}',
            b"x" * 40_000,
            b"\0",
        ]
    ),
    st.binary(max_size=20),
)
messages_of_others = st.lists(bodies, max_size=40)


def alone(payload, at):
    """(events, rejects) of one message as rows, by a decoder of its own; None for the ids that nobody can foresee."""
    for body in (payload, b'{"batch":[' + payload + b"]}"):
        decoder = Decoder()
        try:
            decoder.append(body, at)
        except BodyError as error:
            broken = f"a message that is not JSON: {error}"
            continue
        return tuple(plain(batch) for batch in decoder.finish())
    letter = {"reason": Reason.NOT_AN_OBJECT, "detail": broken, "payload": payload, "received_at": at}
    return [], plain(pa.RecordBatch.from_pylist([letter], REJECT))


def plain(batch):
    rows = batch.to_pylist()
    for row in rows:
        if row.get("flags", 0) & Flag.ID_DERIVED and row["original_timestamp"] is None:
            row["event_id"] = None
    return rows


def rows(frames):
    return frame.decode_all(frames, LOGGED).to_pylist()


def owned(frames):
    """The rows of all, each with the offset of its frame."""
    return [
        (stored.offset, row)
        for side, batch in frame.batches(frames)
        for stored, row in zip(frame.owners(side, np.arange(len(batch))), batch.to_pylist(), strict=True)
    ]


def rejects(frames):
    return frame.gather([each.rejects for each in frames if each.rejects], REJECT)


@given(
    messages_of_others,
    st.sampled_from([1, 7, HOUR_MS // 3]),
    st.sampled_from([(2, 1 << 20), (16_384, 3_000), (16_384, 8 << 20)]),
)
@settings(max_examples=60)
def test_each_message_gives_what_it_gives_alone(payloads, step_ms, most):
    of = places(len(payloads), partition=2, first=9, step_ms=step_ms)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_ROWS_MAX", most[0])
        patch.setattr(module, "_BYTES_MAX", most[1])
        frames = together(payloads, of)
    counts = []
    for place, payload, stored in zip(of, payloads, frames, strict=True):
        assert (stored.partition, stored.offset, stored.appended_at, stored.key) == place[1:]
        assert (stored.payload, stored.foreign) == (payload, True)
        taken, refused = alone(payload, place.appended_at)
        assert plain(frame.decode(stored)) == taken
        assert (stored.events, stored.rejects.size if stored.rejects else 0) == (len(taken), len(refused))
        assert plain(rejects([stored])) == refused
        batches = pa.RecordBatch.from_pylist(refused, REJECT), frame.decode(stored)
        fates = ledger.counts(Hop.REJECTED, batches[0]) + ledger.counts(Hop.ACCEPTED, batches[1])
        counts += fates + [Count(Hop.RECEIVED, fate.hour, fate.events) for fate in fates]
    assert summed(messages.carried(frames)) == summed(counts)
    for some in (frames, frames[::2], frames[::-1], frames[3:7]):
        assert rows(some) == [row for stored in some for row in rows([stored])]
        assert [row for stored in some for row in rejects([stored]).to_pylist()] == rejects(some).to_pylist()
        assert owned(some) == [(stored.offset, row) for stored in some for row in frame.decode(stored).to_pylist()]


def summed(counts):
    sums = Counter()
    for count in counts:
        sums[count.hop, count.hour, count.reason] += count.events
    return sums


@given(messages_of_others, st.integers(0, PARTITIONS - 1))
@settings(max_examples=40)
def test_they_are_placed_and_refused_as_message_by_message(payloads, partition):
    of = places(len(payloads), partition)
    here, elsewhere = placed(together(payloads, of), PARTITIONS)
    wanted, moved, letters = [], [], []
    for stored in one_by_one(payloads, of):
        mine, others = placed([stored], PARTITIONS)
        wanted += mine
        moved += others
        letters += [row for batch in of_foreign([stored]) for row in batch.to_pylist()]
    assert [(each.offset, each.events, rows([each])) for each in here] == [
        (each.offset, each.events, rows([each])) for each in wanted
    ]
    for number in range(PARTITIONS):
        of_it = [[reread(each) for each in some if each.partition == number] for some in (elsewhere, moved)]
        assert len(of_it[0]) <= 1
        assert rows(of_it[0]) == rows(of_it[1])
    assert partition not in {each.partition for each in elsewhere}
    assert [row for batch in of_foreign(together(payloads, of)) for row in batch.to_pylist()] == letters
    assert all((row["raw_partition"], row["stage"]) == (partition, "ingest") for row in letters)


def test_messages_of_eventmill_stand_between_them():
    others = together([orjson.dumps(event(n)) for n in range(4)])
    ours = reread(frame.encode(Topic.RAW, frame.decode_all(others[:2], LOGGED)), offset=4)
    mixed = [*others[:2], ours, *others[2:], ours]
    assert [row["message_id"] for row in rows(mixed)] == [
        "m0", "m1", "m0", "m1", "m2", "m3", "m0", "m1",
    ]  # fmt: skip
    assert [len(side) for side, _ in frame.batches(mixed)] == [2, 1, 2, 1]
    assert [offset for offset, _ in owned(mixed)] == [0, 1, 4, 4, 2, 3, 4, 4]
    here, elsewhere = placed(mixed, PARTITIONS)
    assert [each.offset for each in here] == [each.offset for each in mixed]
    assert sum(each.events for each in [*here, *elsewhere]) == 8
    assert [each for each in here if not each.foreign] == [ours, ours]


def test_equal_events_without_id_and_time_stay_apart_and_are_known_again():
    bare = orjson.dumps({"type": "track", "event": "e", "userId": "u"})
    payloads = [bare, b'{"batch":[%s,%s]}' % (bare, bare), bare]
    of = [place._replace(appended_at=AT, partition=n // 2) for n, place in enumerate(places(3))]
    ids = frame.decode_all(together(payloads, of), RAW).column("event_id").to_pylist()
    assert len(set(ids)) == 4
    assert frame.decode_all(one_by_one(payloads, of), RAW).column("event_id").to_pylist() == ids


def test_what_is_read_first_is_not_touched_by_what_is_read_later():
    foreign = Foreign()
    first = foreign.take(places(1)[0], {"traceparent": "00"}, orjson.dumps(event(1)))
    foreign.seal()
    before = frame.decode(first).to_pylist()
    foreign.take(places(2)[1], {}, orjson.dumps(event(2)))
    foreign.seal()
    assert frame.decode(first).to_pylist() == before
    assert first.headers == {"traceparent": "00"}


class Raw:
    """A log of which only partition 0 of raw is read: messages of others, decoded anew by each read, ``size`` together."""

    def __init__(self, payloads, size):
        self.size, self.payloads = size, payloads

    def partitions(self, _topic):
        return range(PARTITIONS)

    def start_offset(self, _topic, _partition):
        return 0

    def end_offset(self, _topic, _partition):
        return 0

    def read(self, _topic, _partition, begin, *, events_max=0, to_offset=None):
        end = min(begin + self.size, len(self.payloads) if to_offset is None else to_offset)
        return together(self.payloads[begin:end], places(end)[begin:])


def processed(folder, raw, crash_at):
    """What comes of all of it: at an offset the state is lost and folded again."""

    def state():
        def stages():
            return [Dedup(build_filter(CONFIG.dedup, secret=b"the same in each")), *build_stages(CONFIG)[1:]]

        return PartitionState(raw, 0, stages, folder, batch_events_max=100, redaction=Redaction(["properties.large"]))

    one, batches, others, position = state(), [], [], 0
    one.recover(0)
    while position < len(raw.payloads):
        done = one.process(raw.read(Topic.RAW, 0, position))
        one.advance(done)
        position = done.following
        batches += done.enriched
        others += done.others
        if crash_at is not None and position >= crash_at:
            one, crash_at = state(), None
            one.recover(position)
    made = {Topic.ENRICHED: [row for batch in batches for row in frame.conform(batch, EVENT).to_pylist()]}
    for topic, schema in ((Topic.DEAD, DEAD), (Topic.SUSPECTS, LOGGED), (Topic.RAW, LOGGED)):
        made[topic] = frame.decode_all([reread(each) for each in others if each.topic is topic], schema).to_pylist()
    made[Topic.RAW].sort(key=lambda row: (row["device_id"], row["event_id"]))
    return made


@given(st.lists(bodies, max_size=20), st.integers(2, 20), st.integers(1, 20), st.integers(0, 20))
@settings(max_examples=15)
def test_a_processor_makes_the_same_of_them_however_they_are_read_and_wherever_it_crashes(
    tmp_path_factory, payloads, size, folded, crash_at
):
    folder = tmp_path_factory.mktemp("state")
    alone = processed(folder, Raw(payloads, 1), None)
    assert processed(folder, Raw(payloads, size), None) == alone
    assert processed(folder, Raw(payloads, folded), crash_at) == alone
    assert len(alone[Topic.DEAD]) == sum(stored.rejects.size for stored in together(payloads) if stored.rejects)


class Queue:
    """A consumer whose messages have all come; ``asked`` are how many were wanted at once."""

    def __init__(self, _settings):
        self.made, self.asked = [], []

    def poll(self, _timeout_s):
        self.asked.append(1)
        return self.made.pop(0) if self.made else None

    def consume(self, most, _timeout_s):
        self.asked.append(most)
        taken, self.made = self.made[:most], self.made[most:]
        return taken

    incremental_assign = incremental_unassign = resume = lambda *_: None


def message(partition, offset, value, headers=None):
    return SimpleNamespace(
        partition=lambda: partition, offset=lambda: offset, value=lambda: value, headers=lambda: headers, key=lambda: None,
        timestamp=lambda: (1, AT), error=lambda: None,
    )  # fmt: skip


@pytest.fixture
def member(monkeypatch):
    monkeypatch.setattr(member_module, "Consumer", Queue)
    config = load(environ={}, overrides={"kafka.bootstrap": "nowhere:1"})
    one = member_module.Member(config, "process", Topic.RAW, "p0")
    one.held = {0, 1}
    one.resume(0, 5)
    one.resume(1, 0)
    return one


def test_messages_of_others_are_taken_many_at_once_and_those_below_the_position_not_at_all(member):
    queue = member._consumer
    queue.made = [message(n % 2, n // 2, orjson.dumps(event(n))) for n in range(1_000)]
    polled = member.poll(1.0, events_max=600, linger_s=0.0)
    assert [each.offset for each in polled[0]] == list(range(5, 5 + len(polled[0])))
    assert [each.offset for each in polled[1]] == list(range(len(polled[1])))
    assert 600 <= sum(map(len, polled.values())) < 664
    assert len(queue.asked) < 30
    rest = member.poll(0.0, events_max=10**6, linger_s=0.0)
    assert [each.offset for each in polled[1] + rest[1]] == list(range(500))
    names = [row["message_id"] for row in frame.decode_all(polled[1] + rest[1], RAW).to_pylist()]
    assert names == [f"m{n}" for n in range(1, 1_000, 2)]


def test_what_has_no_events_fills_a_batch_too(member):
    member._consumer.made = [message(1, n, b"no JSON") for n in range(500)]
    polled = member.poll(1.0, events_max=100, linger_s=0.0)
    assert 100 <= len(polled[1]) < 164
    assert rejects(polled[1]).num_rows == len(polled[1])


def test_a_message_without_a_value_is_a_dead_letter(member):
    member._consumer.made = [message(1, n, value) for n, value in enumerate([orjson.dumps(event(1)), None, b""])]
    polled = member.poll(0.0, events_max=10, linger_s=0.0)[1]
    assert [(each.events, each.rejects and each.rejects.size) for each in polled] == [(1, None), (0, 1), (0, None)]
    (letter,) = rejects(polled).to_pylist()
    assert (letter["reason"], letter["detail"], letter["payload"]) == (
        "not_an_object",
        "a message without a value",
        b"",
    )


def test_frames_are_taken_one_by_one(member):
    made = frame.encode(Topic.RAW, frame.decode_all(together([orjson.dumps(event(1))]), LOGGED))
    of_ours = [(name, value.encode()) for name, value in made.headers.items()] + [("events", b"1")]
    queue = member._consumer
    queue.made = [message(1, n, bytes(made.payload), of_ours) for n in range(50)]
    assert len(member.poll(1.0, events_max=40, linger_s=0.0)[1]) == 40
    assert set(queue.asked) == {1}


def test_a_partition_that_goes_while_messages_are_fetched_gives_none(member):
    queue = member._consumer
    queue.made = [message(n % 2, 5 + n // 2, orjson.dumps(event(n))) for n in range(200)]
    taken = Queue.consume

    def consume(most, timeout_s):
        member._on_gone(queue, [SimpleNamespace(topic="raw", partition=0)], lost=False)
        return taken(queue, most, timeout_s)

    queue.consume = consume
    polled = member.poll(1.0, events_max=10**6, linger_s=0.0)
    assert list(polled) == [1]
    assert [each.offset for each in polled[1]] == list(range(5, 105))
