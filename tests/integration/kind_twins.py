"""Funnels, retention, sessions, timelines and paths computed the slow and obvious way: Python over every row."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import UTC, datetime
from typing import Any

from query_twin import INTERVALS, iso, meets, ms, raw, text

DAY_MS = INTERVALS["day"]
QUANTILES = (0.5, 0.75, 0.9, 0.95, 0.99)
WHO = {"devices": "device_id", "users": "user_id"}
Row = dict[str, Any]


def chosen(rows: list[Row], body: Row) -> list[Row]:
    """Rows of the span that meet all filters."""
    start, end = ms(body["from"]), ms(body["to"])
    return [row for row in rows if start <= row["timestamp"] < end and passes(row, body.get("filters"))]


def passes(row: Row, filters: list[Row] | None) -> bool:
    return all(holds(row, condition) for condition in filters or [])


def holds(row: Row, condition: Row) -> bool:
    if "any" in condition:
        return any(holds(row, each) for each in condition["any"])
    if "all" in condition:
        return all(holds(row, each) for each in condition["all"])
    return meets(row, condition)


def matches(row: Row, selection: Row | None) -> bool:
    selection = selection or {}
    return selection.get("event") in (None, row["event"]) and passes(row, selection.get("filters"))


def grouped(rows: list[Row], key: str) -> dict[Any, list[Row]]:
    found = defaultdict(list)
    for row in rows:
        if row[key] is not None:
            found[row[key]].append(row)
    return found


def by_label(label: str | None) -> tuple[bool, bytes]:
    """The order of labels: null first."""
    return label is not None, (label or "").encode()


def first_label(rows: list[Row], field: str) -> str | None:
    first = min(row["timestamp"] for row in rows)
    return min((text(raw(row, field)) for row in rows if row["timestamp"] == first), key=by_label)


def quantile(values: list[int], level: float) -> int:
    return sorted(values)[int(level * len(values))]


def shown(counts: dict[Any, int], body: Row) -> dict[Any, Any]:
    """What each label is shown as."""
    ranked = sorted(counts, key=lambda label: (-counts[label], by_label(label)))
    return {label: label if place < body.get("limit", 20) else "other" for place, label in enumerate(ranked)}


def walk(rows: list[Row], body: Row, window: int) -> dict[int, int]:
    """Each step that somebody completes to the time since the step before it."""
    steps = body["steps"]
    marked = [(row["timestamp"], [k for k, step in enumerate(steps) if matches(row, step)], row) for row in rows]
    marked = [each for each in marked if each[1]]
    marked.sort(key=lambda each: (each[0], each[1][0], sum(1 << k for k in each[1])))
    start: dict[int, int] = {}  # step to the newest start of a run that has completed it
    last: dict[int, int] = {}  # step to its newest completion
    gaps: dict[int, int] = {}
    for at, completes, _ in marked:
        for k in sorted(completes, reverse=True):
            if k and (k - 1 not in start or at - start[k - 1] > window):
                continue
            gaps.setdefault(k, at - last[k - 1] if k else 0)
            start[k], last[k] = start[k - 1] if k else at, at
    return gaps


def funnel(rows: list[Row], body: Row, window: int) -> list[list[Any]]:
    people = grouped(chosen(rows, body), WHO[body.get("measure", "devices")])
    field = body.get("breakdown")
    walks, labels = {}, {}
    for who, mine in people.items():
        gaps = walk(mine, body, window)
        if gaps:
            walks[who] = gaps
            begun = [row for row in mine if matches(row, body["steps"][0])]
            labels[who] = first_label(begun, field) if field else None
    sizes = Counter(labels.values())
    names = shown(sizes, body)
    order = list(dict.fromkeys(names.values())) if field else [None]
    found = []
    for label in order:
        members = [gaps for who, gaps in walks.items() if names[labels[who]] == label]
        before = first = 0
        for k, step in enumerate(body["steps"]):
            times = [gaps[k] for gaps in members if k in gaps]
            count = len(times)
            first = first if k else count
            line = [k + 1, step.get("event"), count, count / first if first else None]
            line.append((count / before if before else None) if k else (1.0 if first else None))
            line += [quantile(times, 0.5), quantile(times, 0.95)] if k and count else [None, None]
            found.append([label, *line] if field else line)
            before = count
    return found


def period(at: int, interval: str) -> int:
    day = datetime.fromtimestamp(at // 1_000, UTC)
    if interval == "day":
        return day.toordinal()
    return (day.toordinal() - 1) // 7 if interval == "week" else day.year * 12 + day.month - 1


def period_start(number: int, interval: str) -> str:
    if interval == "month":
        day = datetime(number // 12, number % 12 + 1, 1, tzinfo=UTC)
    else:
        day = datetime.fromordinal(number if interval == "day" else number * 7 + 1)
    return day.strftime("%Y-%m-%dT00:00:00Z")


def retention(rows: list[Row], body: Row) -> list[list[Any]]:
    interval = body.get("interval", "day")
    cells: Counter[tuple[int, int]] = Counter()
    for mine in grouped(chosen(rows, body), WHO[body.get("measure", "devices")]).values():
        starts = {period(row["timestamp"], interval) for row in mine if matches(row, body.get("first"))}
        visits = {period(row["timestamp"], interval) for row in mine if matches(row, body.get("returning"))}
        if starts and body.get("cohort", "first") == "first":
            starts = {min(starts)}
        for start in starts:
            cells[start, 0] += 1
            cells.update((start, visit - start) for visit in visits if visit > start)
    first, last = period(ms(body["from"]), interval), period(ms(body["to"]) - 1, interval)
    found = []
    for start in range(first, last + 1):
        size = cells[start, 0]
        for age in range(last - start + 1):
            n = cells[start, age]
            found.append([period_start(start, interval), age, n, n / size if size else None])
    return found


def sessions(rows: list[Row], body: Row) -> list[list[Any]]:
    interval, field = body.get("interval", "hour"), body.get("breakdown")
    start, end = ms(body["from"]), ms(body["to"])
    wanted = {"event": body.get("event"), "filters": body.get("filters")}
    groups: dict[tuple[int, Any], list[tuple[int, int]]] = defaultdict(list)
    for mine in grouped(chosen(rows, {**body, "filters": None}), "session_id").values():
        if any(matches(row, wanted) for row in mine):
            times = [row["timestamp"] for row in mine]
            bucket = start if interval == "total" else min(times) // INTERVALS[interval] * INTERVALS[interval]
            label = first_label(mine, field) if field else None
            groups[bucket, label].append((len(mine), max(times) - min(times)))
    sizes: Counter[Any] = Counter()
    for (_, label), members in groups.items():
        sizes[label] += len(members)
    names = shown(sizes, body)
    merged: dict[tuple[int, Any], list[tuple[int, int]]] = defaultdict(list)
    if field is None:
        step = end - start if interval == "total" else INTERVALS[interval]
        first = start if interval == "total" else start // step * step
        merged.update({(at, None): [] for at in range(first, end, step)})
    for (bucket, label), members in groups.items():
        merged[bucket, names[label]] += members
    order = list(dict.fromkeys(names.values())) or [None]
    found = []
    for (bucket, label), members in sorted(merged.items(), key=lambda each: (each[0][0], order.index(each[0][1]))):
        count, events = len(members), sum(size for size, _ in members)
        lengths = [length for _, length in members]
        line = [iso_ms(bucket), *([label] if field else []), count, sum(size == 1 for size, _ in members)]
        if count:
            line += [line[-1] / count, events, events / count, sum(lengths) / count]
            line += [quantile(lengths, level) for level in QUANTILES]
        else:
            line += [None, 0, None, None, *(None for _ in QUANTILES)]
        found.append(line)
    return found


def iso_ms(at: int) -> str:
    return iso(at) if at % 1_000 == 0 else f"{iso(at)[:-1]}.{at % 1_000:03}Z"


def timeline(rows: list[Row], body: Row) -> list[bytes]:
    """The ids of all pages."""
    (key,) = {"user", "device", "id"} & set(body)
    columns = {"user": ["user_id"], "device": ["device_id"], "id": ["user_id", "device_id", "anonymous_id"]}[key]
    wanted = {"event": body.get("event"), "filters": body.get("filters")}
    found = [
        row
        for row in chosen(rows, {**body, "filters": None})
        if any(row[name] == body[key] for name in columns) and matches(row, wanted)
    ]
    return [row["event_id"] for row in sorted(found, key=lambda row: (row["timestamp"], row["event_id"]), reverse=True)]


def paths(rows: list[Row], body: Row) -> dict[tuple[int, Any, Any], int]:
    onward = "start" in body
    anchor, depth, top = body["start" if onward else "end"], body.get("depth", 3), body.get("top", 10)
    taken = []
    for mine in grouped(chosen(rows, body), "session_id").values():
        pairs = sorted(((row["timestamp"], row["event"].encode()) for row in mine), reverse=not onward)
        names = [name.decode() for _, name in pairs]
        if anchor in names:
            taken.append(names[names.index(anchor) :][: depth + 1])
    kept = []
    for place in range(depth + 1):
        counts = Counter(names[place] for names in taken if place < len(names))
        kept.append(set(sorted(counts, key=lambda name: (-counts[name], name.encode()))[:top]))
    found: Counter[tuple[int, Any, Any]] = Counter()
    for names in taken:
        shown_as: list[Any] = [name if name in kept[place] else "other" for place, name in enumerate(names)]
        shown_as += [None] * (depth + 1 - len(names))
        for step in range(1, min(depth, len(names)) + 1):
            near, far = shown_as[step - 1], shown_as[step]
            found[(step, near, far) if onward else (step, far, near)] += 1
    return dict(found)
