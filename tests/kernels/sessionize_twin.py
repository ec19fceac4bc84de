"""Sessions in plain Python: the streaming state and the exact computation."""

from __future__ import annotations

import xxhash

SPAN_MAX = 1 << 31


def session_id(device: str, start: int) -> int:
    own = xxhash.xxh3_64_intdigest(device.encode())
    text = own.to_bytes(8, "little") + start.to_bytes(8, "little", signed=True)
    return xxhash.xxh3_64_intdigest(text) & 0x7FFFFFFFFFFFFFFF


class Session:
    def __init__(self, start: int) -> None:
        self.start = self.first = self.last = start

    def touches(self, at: int, gap: int) -> bool:
        return self.first - gap <= at <= self.last + gap

    def extend(self, at: int) -> None:
        self.first = max(min(self.first, at), self.start - SPAN_MAX)
        self.last = min(max(self.last, at), self.start + SPAN_MAX)


class SessionsTwin:
    """The two newest sessions of each device, newest first."""

    def __init__(self, gap: int, lateness: int, devices_max: int = 1 << 31) -> None:
        self.gap, self.lateness, self.devices_max = gap, lateness, devices_max
        self.devices: dict[str, list[Session]] = {}
        self.latest: int | None = None
        self.evicted = 0

    def assign(self, device: str, at: int) -> int:
        if self.latest is None or at > self.latest:
            tick = self.lateness // 8 + 1
            crosses = self.latest is not None and at // tick > self.latest // tick
            self.latest = at
            if crosses:
                self._forget(at - self.lateness)
        if device not in self.devices:
            if at < self.latest - self.lateness:
                return session_id(device, at)
            if len(self.devices) >= self.devices_max:
                before = len(self.devices)
                self._forget(sorted(sessions[0].last for sessions in self.devices.values())[before // 8] + 1)
                self.evicted += before - len(self.devices)
            self.devices[device] = [Session(at)]
            return session_id(device, at)
        return session_id(device, self._place(self.devices[device], at))

    def _forget(self, keep_from: int) -> None:
        for name, sessions in list(self.devices.items()):
            if sessions[0].last < keep_from:
                del self.devices[name]
            else:
                sessions[1:] = [older for older in sessions[1:] if older.last >= keep_from]

    def _place(self, sessions: list[Session], at: int) -> int:
        near = [session for session in sessions if session.touches(at, self.gap)]
        if len(near) == 2:
            newest, older = sessions
            for moment in (at, newest.last):
                older.extend(moment)
            sessions[:] = [older]
            return older.start
        if near:
            near[0].extend(at)
            return near[0].start
        if at > sessions[0].last:
            sessions[:] = [Session(at), sessions[0]]
        elif at >= self.latest - self.lateness and (len(sessions) == 1 or at > sessions[1].last):
            sessions[1:] = [Session(at)]
        return at


def exact_starts(devices: list[str], times: list[int], gap: int) -> list[int]:
    """The start of each row's session, over the whole data set."""
    starts = [0] * len(times)
    newest: dict[str, tuple[int, int]] = {}
    for row in sorted(range(len(times)), key=times.__getitem__):
        last, start = newest.get(devices[row], (None, None))
        if last is None or times[row] - last > gap:
            start = times[row]
        newest[devices[row]] = times[row], start
        starts[row] = start
    return starts
