"""The decoder, slow and obvious: what ``eventmill._native.decode`` must give for a body, one event and one member at a time."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any

import xxhash

from eventmill.core.schema import Flag, Reason

TYPES = ("track", "screen", "page", "identify", "group", "alias")
MS_MIN, MS_MAX = -62_135_596_800_000, 253_402_300_799_999
KNOWN = {
    "type", "event", "userId", "anonymousId", "messageId", "timestamp", "originalTimestamp", "sentAt", "context", "properties",
    "traits", "name", "category", "writeKey",
}  # fmt: skip
DEVICE = {
    "app_version": ("app", "version"),
    "platform": ("os", "name"),
    "os_version": ("os", "version"),
    "device_model": ("device", "model"),
    "locale": ("locale",),
}
_SCANNER = json.JSONDecoder()
_RFC3339 = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?([Zz]|[+-][0-9]{2}(?::?[0-9]{2})?)?)?"
)
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")


@dataclass(frozen=True)
class Value:
    """A JSON value and its text."""

    raw: str
    value: Any

    @property
    def given(self) -> bool:
        """Neither absent nor null."""
        return self.value is not None

    @property
    def text(self) -> str | None:
        """A non-empty string, or a number as it is spelled."""
        if isinstance(self.value, str):
            return self.value or None
        is_number = isinstance(self.value, int | float) and not isinstance(self.value, bool)
        return self.raw if is_number else None

    @property
    def textual(self) -> bool:
        """A string, a number, or missing."""
        return not self.given or isinstance(self.value, str) or self.text is not None


MISSING = Value("", None)


@dataclass(frozen=True)
class Limits:
    """The decoder's."""

    event_bytes_max: int = 32768
    event_name_bytes_max: int = 256
    depth_max: int = 64
    age_max_ms: int = 730 * 86_400_000


@dataclass
class Twin:
    """What came out of a body."""

    events: list[dict[str, Any]] = field(default_factory=list)
    rejects: list[tuple[str, bytes]] = field(default_factory=list)
    write_key: str | None = None


class NotABatch(Exception):
    """The body is JSON, but nothing that can be taken."""


class Bad(Exception):
    """An event is to be rejected."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


def _space(text: str, at: int) -> int:
    while text[at : at + 1] in (" ", "\t", "\n", "\r") and at < len(text):
        at += 1
    return at


def _value(text: str, at: int) -> tuple[Value, int]:
    value, end = _SCANNER.raw_decode(text, at)
    return Value(text[at:end], value), end


def members(text: str) -> Iterator[tuple[str, Value]]:
    """The members of a valid JSON object, duplicates too."""
    at = _space(text, 1)
    while text[at] != "}":
        name, at = _value(text, at)
        at = _space(text, _space(text, at) + 1)
        value, at = _value(text, at)
        yield name.value, value
        at = _space(text, at)
        at = _space(text, at + 1) if text[at] == "," else at


def elements(text: str) -> Iterator[Value]:
    """The elements of a valid JSON array."""
    at = _space(text, 1)
    while text[at] != "]":
        value, at = _value(text, at)
        yield value
        at = _space(text, at)
        at = _space(text, at + 1) if text[at] == "," else at


def parse_time(text: str) -> int | None:
    """Milliseconds since the epoch, rounded down, or None."""
    if len(text) >= 10 and text[4] == "-":
        found = _RFC3339.fullmatch(text)
        if not found:
            return None
        year, month, day = (int(part) for part in found.groups()[:3])
        try:
            days = date(year, month, day).toordinal() - date(1970, 1, 1).toordinal()
        except ValueError:
            return None
        ms = days * 86_400_000
        if found[4] is not None:
            hour, minute, second = int(found[4]), int(found[5]), int(found[6])
            if hour > 23 or minute > 59 or second > 60:
                return None
            ms += ((hour * 60 + minute) * 60 + second) * 1000 + int((found[7] or "0").ljust(3, "0")[:3])
            zone = found[8]
            if zone and zone not in "Zz":
                hours, minutes = int(zone[1:3]), int(zone[3:].lstrip(":") or "0")
                if hours > 23 or minutes > 59:
                    return None
                ms -= (-1 if zone[0] == "-" else 1) * (hours * 60 + minutes) * 60_000
    else:
        if not _NUMBER.fullmatch(text) or len(text) > 64:
            return None
        mantissa, _, exponent = text.lower().partition("e")
        number = Decimal(mantissa)
        if number == 0:
            return 0
        power = number.adjusted() + int(exponent or 0)
        if not -100 < power < 18:
            return None if power > 0 else -1 if number < 0 else 0
        number = number.scaleb(int(exponent or 0))
        ms = int((number if abs(number) >= 10**11 else number * 1000).to_integral_value(rounding="ROUND_FLOOR"))
    return ms if MS_MIN <= ms <= MS_MAX else None


def _raw_depth(text: str) -> int:
    """Depth as written: a duplicate member that loses counts, too."""
    depth = deepest = 0
    inside = escaped = False
    for c in text:
        if inside:
            inside, escaped = (c != '"' or escaped), (c == "\\" and not escaped)
        elif c == '"':
            inside = True
        elif c in "{[":
            depth += 1
            deepest = max(deepest, depth)
        elif c in "}]":
            depth -= 1
    return deepest


def _dig(context: Any, path: tuple[str, ...], raw: str) -> str | None:
    found = Value(raw, context)
    for name in path:
        if not isinstance(found.value, dict):
            return None
        inner = MISSING
        for key, value in members(found.raw):
            inner = value if key == name else inner
        found = inner
    return found.text


def decode(body: bytes, received_at: int, endpoint: str | None = None, limits: Limits | None = None) -> Twin:
    """The events and rejects of a body that is valid JSON."""
    text = body.decode().strip(" \t\n\r")
    root = _value(text, 0)[0]
    limits = limits or Limits()
    if not isinstance(root.value, dict):
        raise NotABatch
    known: dict[str, Value] = {}
    batch: list[tuple[str, str]] = []
    for name, value in members(text):
        if name in ("batch", "sentAt", "writeKey", "context"):
            known[name] = value
        else:
            batch.append((name, value.raw))
    if endpoint is not None or not known.get("batch", MISSING).given:
        return _single(root, received_at, endpoint, limits)
    if not isinstance(known["batch"].value, list):
        raise NotABatch
    if any(name != "batch" and _raw_depth(value.raw) > limits.depth_max for name, value in members(text)):
        raise NotABatch
    context = known.get("context", MISSING)
    sent = known.get("sentAt", MISSING)
    if sent.given and _time(sent) is None:
        batch.append(("sentAt", sent.raw))
    twin = Twin()
    for event in elements(known["batch"].raw):
        shared = context if isinstance(context.value, dict) else MISSING
        _add(twin, event, received_at, None, limits, shared, sent, batch, context)
    key = known.get("writeKey", MISSING)
    twin.write_key = key.text if isinstance(key.value, str) else None
    return twin


def _single(root: Value, received_at: int, endpoint: str | None, limits: Limits) -> Twin:
    fields = dict(members(root.raw))
    if endpoint is None and not fields.get("type", MISSING).given:
        raise NotABatch
    twin = Twin()
    _add(twin, root, received_at, endpoint, limits, MISSING, MISSING, [], MISSING)
    key = fields.get("writeKey", MISSING)
    twin.write_key = key.text if isinstance(key.value, str) else None
    return twin


def _time(value: Value) -> int | None:
    return parse_time(value.text) if value.text else None


def _add(
    twin: Twin,
    event: Value,
    received_at: int,
    endpoint: str | None,
    limits: Limits,
    shared: Value,
    sent: Value,
    batch: list[tuple[str, str]],
    batch_context: Value,
) -> None:
    try:
        row, own_context, clash = _event(event, received_at, endpoint, limits, shared, sent)
    except Bad as bad:
        twin.rejects.append((bad.reason.value, event.raw.encode()))
        return
    extra = list(batch)
    if batch_context.given and (own_context or batch_context is not shared):
        extra.append(("context", batch_context.raw))
    if extra:
        row["context"]["_batch_2" if clash else "_batch"] = {name: loads(raw) for name, raw in extra}
    twin.events.append(row)


def loads(raw: str) -> Any:
    """JSON whose numbers keep their spelling."""
    return json.loads(raw, parse_float=lambda text: ("number", text), parse_int=lambda text: ("number", text))


def _event(
    event: Value, received_at: int, endpoint: str | None, limits: Limits, shared: Value, envelope_sent: Value
) -> tuple[dict[str, Any], bool, bool]:
    if not isinstance(event.value, dict):
        raise Bad(Reason.NOT_AN_OBJECT)
    if len(event.raw.encode()) > limits.event_bytes_max:
        raise Bad(Reason.EVENT_TOO_LARGE)
    if _raw_depth(event.raw) > limits.depth_max:
        raise Bad(Reason.TOO_DEEP)
    fields: dict[str, Value] = {}
    unmapped: list[tuple[str, str]] = []
    for name, value in members(event.raw):
        if name in KNOWN:
            fields[name] = value
        else:
            unmapped.append((name, value.raw))

    def get(name: str) -> Value:
        return fields.get(name, MISSING)

    kind = endpoint or get("type").value
    if kind not in TYPES or not isinstance(kind, str):
        raise Bad(Reason.UNKNOWN_TYPE)
    content, other = ("traits", "properties") if kind in ("identify", "group") else ("properties", "traits")
    for name in ("userId", "anonymousId", "messageId"):
        if not get(name).textual:
            raise Bad(Reason.WRONG_FIELD_TYPE)
    for name in ("context", content):
        if get(name).given and not isinstance(get(name).value, dict):
            raise Bad(Reason.WRONG_FIELD_TYPE)
    if kind == "track":
        if get("event").given and not isinstance(get("event").value, str):
            raise Bad(Reason.WRONG_FIELD_TYPE)
        if not get("event").value:
            raise Bad(Reason.MISSING_EVENT)
        if len(get("event").value.encode()) > limits.event_name_bytes_max:
            raise Bad(Reason.NAME_TOO_LONG)
    stamp = get("originalTimestamp") if get("originalTimestamp").given else get("timestamp")
    original = _time(stamp)
    if stamp.given and original is None:
        raise Bad(Reason.BAD_TIMESTAMP)
    context = get("context") if get("context").given else shared
    user, anonymous = get("userId").text, get("anonymousId").text
    device = _dig(context.value, ("device", "id"), context.raw) or anonymous or user
    if device is None:
        raise Bad(Reason.MISSING_IDENTITY)

    flags = Flag(0)
    own_sent = get("sentAt")
    sent = own_sent if own_sent.given else envelope_sent
    sent_ms = _time(sent)
    if not sent.given:
        flags |= Flag.SENT_AT_MISSING
    elif sent_ms is None:
        flags |= Flag.SENT_AT_ABSURD
    timestamp, more = _corrected(original, sent_ms, received_at, limits.age_max_ms)

    for name, unused in (
        ("event", kind != "track"),
        ("type", endpoint is not None and get("type").raw != f'"{kind}"'),
        ("timestamp", get("originalTimestamp").given),
        ("sentAt", _time(own_sent) is None),
        (other, True),
    ):
        if unused and get(name).given:
            unmapped.append((name, get(name).raw))
    properties = loads(get(content).raw) if get(content).given else {}
    for name in ("name", "category"):
        if not get(name).given:
            continue
        if kind in ("screen", "page") and name not in (get(content).value or {}):
            properties[name] = loads(get(name).raw)
        else:
            unmapped.append((name, get(name).raw))
    full = loads(context.raw) if context.given else {}
    clash = "_batch" in full
    if unmapped:
        full["_unmapped_2" if "_unmapped" in full else "_unmapped"] = {name: loads(raw) for name, raw in unmapped}

    event_id, message_id, id_flag = _id(get("messageId").text, event.raw.encode(), original)
    row = {
        "event_id": event_id,
        "message_id": message_id,
        "event": get("event").value if kind == "track" else kind,
        "type": kind,
        "device_id": device,
        "anonymous_id": anonymous,
        "user_id": user,
        "timestamp": timestamp,
        "original_timestamp": original,
        "sent_at": sent_ms,
        "received_at": received_at,
        **{column: _dig(context.value, path, context.raw) for column, path in DEVICE.items()},
        "properties": properties,
        "context": full,
        "flags": int(flags | more | id_flag),
    }
    return row, get("context").given, clash


def _corrected(original: int | None, sent: int | None, received_at: int, age_max_ms: int) -> tuple[int, Flag]:
    flags = Flag(0)
    time = original
    if sent is not None:
        out_of_range = not 946_684_800_000 <= sent <= 4_102_444_800_000
        if out_of_range or (original is not None and original - sent > 60_000):
            flags |= Flag.SENT_AT_ABSURD
        elif original is not None:
            time = original + received_at - sent
    if time is None:
        return received_at, flags | Flag.TIMESTAMP_MISSING
    if time > received_at + 60_000 or time < received_at - age_max_ms:
        return received_at, flags | Flag.TIMESTAMP_ABSURD
    return time, flags


def _id(text: str | None, raw: bytes, original: int | None) -> tuple[bytes | None, str | None, Flag]:
    """Id (None: any that is unique), the message_id column, and the flag."""
    if text is None:
        return (None if original is None else xxhash.xxh3_128_digest(raw)), None, Flag.ID_DERIVED
    if re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", text):
        return uuid.UUID(text).bytes, (None if text == text.lower() else text), Flag(0)
    return xxhash.xxh3_128_digest(text.encode()), text, Flag.ID_HASHED
