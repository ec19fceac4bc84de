"""Dead letters' second chance: mended, judged as if they came now, and put back where they are good.

What is put back, what stays dead, and the group's offset are committed in one transaction, so each letter is put back at
most once. A letter that is still bad, or was not asked for, is written back (its reason brought up to date), so that a later
replay finds it again. A redacted one is judged by what it was, as long as its event stands on raw. What is put back keeps
its id and its times. An id that the filter has seen goes the way of every suspect: an exact look-up in the store decides,
so that an event which has come in by another way meanwhile is not stored twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import jq
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from eventmill._native.decode import Decoder
from eventmill.core import frame, groups, ledger
from eventmill.core.clock import parse_duration_ms
from eventmill.core.config import HttpConfig, IngestConfig
from eventmill.core.errors import BodyError, ConfigError, StateError
from eventmill.core.log import Log
from eventmill.core.projects import stamped
from eventmill.core.redact import NOTHING, Redaction
from eventmill.core.schema import AT_INGEST, DEAD, Flag, Hop, Reason, Topic
from eventmill.core.tombstones import Tombstones, recorded
from eventmill.process.letters import fingerprint
from eventmill.process.originals import Originals
from eventmill.process.placing import raw_frames
from eventmill.process.schemas.ruling import Ruling
from eventmill.process.validate import flagged, refusals

PARTITION: Final = 0
_READ_EVENTS: Final = 10_000
_TIMES: Final = ("timestamp", "originalTimestamp", "sentAt")

Letter = dict[str, Any]


class Patch:
    """A jq expression over a client's event, such as ``.properties.price |= tonumber``."""

    def __init__(self, expression: str) -> None:
        """Raises ``ConfigError`` for what jq does not compile."""
        try:
            self._program = jq.compile(expression)
        except ValueError as error:
            raise ConfigError(f"--patch {expression!r} is no jq expression: {error}") from error

    def apply(self, payload: bytes, reason: str) -> bytes:
        """The mended event, its id as it was, and its times too unless they are what was wrong.

        The payload itself where it is no JSON object, or the expression fails on it or gives something else than one object.
        """
        try:
            event = orjson.loads(payload)
            results = self._program.input_value(event).all()
        except ValueError:
            return payload
        if not isinstance(event, dict) or len(results) != 1 or not isinstance(results[0], dict):
            return payload
        kept = ("messageId",) if reason == Reason.BAD_TIMESTAMP else ("messageId", *_TIMES)
        mended = {key: value for key, value in results[0].items() if key not in kept}
        return orjson.dumps(mended | {key: event[key] for key in kept if key in event})


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which letters: of these reasons, events and fingerprints (any, where empty), received at or after ``since_ms``."""

    reasons: frozenset[str] = frozenset()
    events: frozenset[str] = frozenset()
    fingerprints: frozenset[str] = frozenset()
    since_ms: int = 0

    def asks_for(self, letter: Letter, cause: str) -> bool:
        """Whether the letter is one of them."""
        return (
            (not self.reasons or letter["reason"] in self.reasons)
            and (not self.events or letter["event"] in self.events)
            and (not self.fingerprints or cause in self.fingerprints)
            and letter["received_at"].timestamp() * 1000 >= self.since_ms
        )


@dataclass(slots=True)
class Cause:
    """Letters of one fingerprint, and what became of them. ``detail`` is the first one's."""

    fingerprint: str
    reason: str
    event: str | None
    schema: str | None
    path: str | None
    rule: str | None
    detail: str
    read: int = 0
    replayed: int = 0
    still_dead: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For machines."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(slots=True)
class Replay:
    """How many dead letters were read, and what became of them; ``causes`` are of those that were asked for."""

    read: int = 0
    replayed: int = 0
    still_dead: int = 0
    skipped: int = 0
    causes: dict[str, Cause] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For machines; the commonest cause first."""
        ordered = sorted(self.causes.values(), key=lambda cause: (-cause.read, cause.fingerprint))
        totals = {name: getattr(self, name) for name in ("read", "replayed", "still_dead", "skipped")}
        return totals | {"causes": [cause.as_dict() for cause in ordered]}


@dataclass(frozen=True, slots=True)
class Rules:
    """What a letter is judged by: today's limits, blocked names and schemas, after ``patch``. What stays is redacted again."""

    ingest: IngestConfig
    http: HttpConfig
    blocked: tuple[str, ...] = ()
    ruling: Ruling | None = None
    patch: Patch | None = None
    redaction: Redaction = NOTHING


def replay_dead(
    log: Log,
    rules: Rules,
    wanted: Wanted,
    *,
    dry_run: bool = False,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Replay:
    """Replay the dead letters that the log holds now; ``dry_run`` only says what would become of them.

    On Kafka the log's name must be that of all replays: it is what keeps two at a time apart. Raises ``StateError``, or
    ``LogUnavailable`` there, when another one runs.
    """
    decoder = Decoder(
        event_bytes_max=rules.http.event_bytes_max,
        event_name_bytes_max=rules.ingest.event_name_bytes_max,
        depth_max=rules.ingest.depth_max,
        age_max_ms=parse_duration_ms(rules.ingest.age_max),
    )
    if not dry_run:
        log.settle()
    through = log.committed(groups.REPLAY, Topic.DEAD, PARTITION)
    forgotten = Tombstones(recorded(log).tombstones)
    first = position = max(through, log.start_offset(Topic.DEAD, PARTITION))
    end, report, originals = log.end_offset(Topic.DEAD, PARTITION), Replay(), Originals(log)
    while position < end:
        frames = log.read(Topic.DEAD, PARTITION, position, events_max=_READ_EVENTS, to_offset=end)
        if not frames:
            break
        batch = frame.decode_all(frames, DEAD)
        # Where frames cannot be changed, those of whoever was forgotten end here instead of once more at the topic's end.
        letters = batch.filter(pa.array(~forgotten.mask_of_letters(batch))).to_pylist()
        good, dead = _judge(decoder, rules, wanted, letters, report, originals)
        position = frames[-1].offset + 1
        if not dry_run:
            with log.transaction() as transaction:
                # Nobody else can commit before this transaction, so what is committed now stays so.
                if log.committed(groups.REPLAY, Topic.DEAD, PARTITION) != through:
                    raise StateError("another replay runs at the same time; let it end, then try again")
                outputs = raw_frames(good, len(log.partitions(Topic.RAW)))
                if dead:
                    stay = rules.redaction.letters(pa.RecordBatch.from_pylist(dead, DEAD))
                    outputs.append(frame.encode(Topic.DEAD, stay))
                transaction.append(outputs)
                transaction.commit_offset(groups.REPLAY, Topic.DEAD, PARTITION, position)
                transaction.count(ledger.counts(Hop.REPLAYED, good))
            through = position
        progress(position - first, end - first)
    progress(end - first, end - first)
    return report


def _judge(
    decoder: Decoder, rules: Rules, wanted: Wanted, letters: list[Letter], report: Replay, originals: Originals
) -> tuple[pa.RecordBatch, list[Letter]]:
    """The events to put back, and the letters that stay, both in order; adds to the report."""
    accepted: list[Letter] = []
    refused: list[Letter] = []
    dead: list[Letter] = []
    causes: dict[int, Cause] = {}
    for letter in letters:
        cause = fingerprint(letter["reason"], letter["event"], letter["schema"], letter["path"], letter["rule"])
        report.read += 1
        if not wanted.asks_for(letter, cause):
            report.skipped += 1
            dead.append(letter)
            continue
        about = {name: letter[name] for name in ("reason", "event", "schema", "path", "rule", "detail")}
        causes[id(letter)] = group = report.causes.setdefault(cause, Cause(fingerprint=cause, **about))
        group.read += 1
        payload = originals.payload(letter)
        payload = payload if rules.patch is None else rules.patch.apply(payload, letter["reason"])
        try:
            taken, rejected, _ = decoder.append(b'{"batch":[' + payload + b"]}", _ms(letter))
        except BodyError:  # bytes that are no JSON by themselves stay dead under their old reason
            taken = rejected = 0
        place = accepted if taken else refused if rejected else dead
        place.append(letter)
    events, rejects = decoder.finish()
    events = stamped(events, [(letter["project"], row) for row, letter in enumerate(accepted, 1)])
    for letter, row in zip(refused, rejects.select(["reason", "detail"]).to_pylist(), strict=True):
        dead.append(letter | row | dict.fromkeys(("schema", "path", "rule")) | {"stage": AT_INGEST})
    broken = refusals(events, rules.blocked, None if rules.ruling is None else rules.ruling.judge(events))
    dead += [accepted[row] | refusal for row, refusal in broken.items()]
    keep = np.ones(events.num_rows, np.bool_)
    keep[list(broken)] = False
    for row in np.flatnonzero(keep).tolist():
        causes[id(accepted[row])].replayed += 1
    for cause_ in report.causes.values():
        cause_.still_dead = cause_.read - cause_.replayed
    good = events.filter(pa.array(keep))
    report.replayed += good.num_rows
    report.still_dead = report.read - report.replayed - report.skipped
    return flagged(good, np.ones(good.num_rows, np.bool_), Flag.REPLAYED), dead


def _ms(letter: Letter) -> int:
    return int(pc.cast(pa.scalar(letter["received_at"], DEAD.field("received_at").type), pa.int64()).as_py())
