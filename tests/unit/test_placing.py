"""What others have written out of place is taken where it belongs, each event once."""

from __future__ import annotations

import pytest
from tests.foreign_messages import reread, together

from eventmill.core import frame
from eventmill.core.schema import LOGGED, Topic
from eventmill.kernels.partition import murmur2
from eventmill.log.kafka.foreign import Place
from eventmill.process.placing import placed

EVENTS = b",".join(b'{"type":"track","event":"e","userId":"u%d","messageId":"m%d"}' % (n, n) for n in range(50))


def of(frames):
    return [row["message_id"] for row in frame.decode_all(frames, LOGGED).to_pylist()]


@pytest.mark.parametrize("partitions", [1, 3, 12])
@pytest.mark.parametrize("partition", [0, 2])
def test_each_event_is_in_one_frame_and_that_belongs_where_its_device_does(partition, partitions):
    partition = min(partition, partitions - 1)
    (whole,) = together([b'{"batch":[%s]}' % EVENTS], [Place(Topic.RAW, partition, 7, 1_795_000_000_000, b"e")])
    here, others = placed([whole], partitions)
    elsewhere = [reread(each) for each in others]
    assert [(each.offset, each.partition) for each in here] == [(7, partition)]
    seen = of(here)
    assert here[0].events == len(seen)
    for each in [*here, *elsewhere]:
        for row in frame.decode_all([each], LOGGED).to_pylist():
            assert (murmur2(row["device_id"].encode()) & 0x7FFFFFFF) % partitions == each.partition
        assert each.events > 0 or each is here[0]
    everything = seen + [name for each in elsewhere for name in of([each])]
    assert sorted(everything) == sorted(f"m{n}" for n in range(50))
    assert elsewhere == [] or partitions > 1
    # What is right now stays as it is, and so does what nobody else has written.
    again, none = placed(here, partitions)
    assert (of(again), none) == (seen, [])


def test_a_message_of_which_nothing_belongs_here_is_taken_and_empty():
    one = b'{"type":"track","event":"e","userId":"u1","messageId":"m1"}'
    frames = together([one] * 12, [Place(Topic.RAW, each, 0, 1, None) for each in range(12)])
    outcomes = [placed([each], 12) for each in frames]
    assert sum(here[0].events for here, _ in outcomes) == 1
    assert sum(len(elsewhere) for _, elsewhere in outcomes) == 11
    assert len({each.partition for _, elsewhere in outcomes for each in elsewhere}) == 1
