"""The dashboard in a real browser against a real server: every page, its numbers, its accessibility."""

from __future__ import annotations

import csv
import itertools
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import orjson
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect
from tests.browser import Tab, chromium
from tests.serving import Serving, eventually, seeded

EVENTS = 6_000
DAY_MS = 86_400_000
PAGES = (
    "overview", "live", "pipeline", "explore?event=Product+Viewed&by=platform&chart=bar", "funnels?by=platform", "retention",
    "paths", "sessions", "users", "sql?q=SELECT+1+AS+one", "saved",
)  # fmt: skip
LOOKS = {
    "light": {"viewport": {"width": 1360, "height": 850}},
    "dark": {"viewport": {"width": 1360, "height": 850}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 850}, "is_mobile": True, "has_touch": True},
}
#: Kept for who wants to look at them.
SHOTS = Path(__file__).parents[2] / "build" / "screenshots"


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def serving(tmp_path_factory, browser):
    with seeded(tmp_path_factory.mktemp("dashboard"), EVENTS) as found:
        yield found


@pytest.fixture
def tab(browser, serving):
    with Tab(browser, serving.url, viewport={"width": 1360, "height": 850}) as found:
        yield found


def number(text):
    return int(re.sub(r"\D", "", text))


def iso(at_ms):
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat()


def cells(tab, caption):
    """The rows of the table of this caption, as shown."""
    rows = tab.page.locator("table", has=tab.page.locator("caption", has_text=caption)).locator("tbody tr")
    return [row.locator("th, td").all_inner_texts() for row in rows.all()]


@pytest.mark.parametrize("look", LOOKS)
def test_every_page_shows_without_a_complaint_and_can_be_used_by_all(browser, serving, look):
    with Tab(browser, serving.url, **LOOKS[look]) as tab:
        for place in PAGES:
            page = tab.open(place)
            assert tab.complaints == [], place
            assert page.locator("[role=alert]:not(:empty)").count() == 0, place
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{place} scrolls sideways"
            SHOTS.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=SHOTS / f"{place.split('?')[0]}-{look}.png", full_page=True)
            assert serious(page) == [], place
            tab.complaints.clear()  # those about the checker itself
    print(f"screenshots: {SHOTS}/*-{look}.png")


def serious(page):
    """What axe finds that keeps somebody from using the page."""
    return [
        (each["id"], [node["html"] for node in each["nodes"]][:3])
        for each in Axe().run(page).response["violations"]
        if each["impact"] in ("serious", "critical")
    ]


def test_axe_would_see_a_mistake(browser, serving):
    with Tab(browser, serving.url) as tab:
        page = tab.open("explore")
        page.evaluate("document.querySelector('main').append(document.createElement('button'))")
        assert "button-name" in {name for name, _ in serious(page)}


def test_the_policy_stops_a_script_that_is_written_into_the_page(tab):
    page = tab.open("overview")
    page.evaluate(
        "const s = document.createElement('script'); try { s.text = 'window.hurt = 1'; document.body.append(s); } catch {}"
    )
    assert page.evaluate("window.hurt") is None
    assert tab.complaints


def test_overview_shows_what_the_api_counts(tab, serving):
    tab.open("overview?range=24h")
    now = int(time.time() * 1000)
    since = "timestamp >= fromUnixTimestamp64Milli({a:Int64})"
    ((events, devices),) = serving.sql(f"SELECT count(), uniq(device_id) FROM events WHERE {since}", a=now - DAY_MS)
    shown = {
        each.locator(".label").inner_text(): each.locator(".value").inner_text()
        for each in tab.page.locator(".figure").all()
    }
    assert number(shown["Events"]) == events
    assert number(shown["Active devices"]) == devices
    query = f"SELECT event, count() AS n FROM events WHERE {since} GROUP BY event ORDER BY n DESC LIMIT 1"
    ((name, count),) = serving.sql(query, a=(now - DAY_MS) // 60_000 * 60_000)
    first = cells(tab, "Top events")[0]
    assert first[0] == name
    assert number(first[1]) == pytest.approx(count, rel=0.01)


def trends(serving, **more):
    end = (int(time.time() * 1000) // 3_600_000 + 1) * 3_600_000
    body = {
        "event": None,
        "measure": "events",
        "interval": "hour",
        "from": iso(end - DAY_MS - 3_600_000),
        "to": iso(end),
        **more,
    }
    status, answer = serving.post("/v1/query/trends", body)
    assert status == 200, answer
    return answer


def test_explore_shows_what_the_api_answers(tab, serving):
    tab.open("explore?event=Product+Viewed&measure=devices&interval=hour")
    answer = trends(serving, event="Product Viewed", measure="devices")
    shown = [number(row[1]) for row in cells(tab, "Active devices")]
    assert shown == [value for _, value in reversed(answer["rows"])][: len(shown)]
    assert sum(shown) > 100


def test_explore_is_built_by_hand_kept_in_the_address_and_given_as_a_file(tab, serving):
    page = tab.open("explore")
    page.get_by_role("combobox", name="Of event").fill("Product Viewed")
    page.get_by_label("Break down by, first field").fill("platform")
    page.get_by_role("button", name="+ Add filter").click()
    page.get_by_label("Filter 1: field").fill("properties.price")
    page.get_by_label("Filter 1: comparison").select_option("gt")
    page.get_by_label("Filter 1: value").fill("50")
    page.get_by_label("Filter 1: value").press("Tab")
    page.get_by_role("button", name="Bars").click()
    tab.settle()
    filters = [{"field": "properties.price", "op": "gt", "value": 50}]
    answer = trends(serving, event="Product Viewed", breakdown="platform", filters=filters)
    total = sum(row[2] for row in answer["rows"])
    assert sum(number(cell) for row in cells(tab, "Number of events") for cell in row[1:]) == total > 0
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").click()
    rows = list(csv.DictReader(Path(download.value.path()).read_text().splitlines()))
    assert sum(int(row["value"]) for row in rows) == total
    with page.expect_download() as download:
        page.get_by_role("button", name="Arrow").click()
    assert Path(download.value.path()).stat().st_size > 100
    kept = page.url
    page.goto("about:blank")
    page.goto(kept)
    tab.settle()
    assert page.get_by_label("Filter 1: value").input_value() == "50"
    assert page.get_by_role("button", name="Bars").get_attribute("aria-pressed") == "true"
    assert sum(number(cell) for row in cells(tab, "Number of events") for cell in row[1:]) == total
    assert tab.complaints == []


def test_explore_breaks_down_by_three_fields_beside_the_period_before(tab, serving):
    place = "explore?event=Product+Viewed&range=6h&interval=hour&by=platform,app_version,type&compare=previous"
    page = tab.open(place)
    end = (int(time.time() * 1000) // 3_600_000 + 1) * 3_600_000
    body = {
        "event": "Product Viewed",
        "breakdown": ["platform", "app_version", "type"],
        "limit": 9,
        "compare": "previous",
    }
    answer = trends(serving, **body, **{"from": iso(end - 7 * 3_600_000)})
    shown = page.locator("thead th").all_inner_texts()[1:]
    names = {" · ".join(row[1:4]) for row in answer["rows"]}
    assert set(shown) == names | {f"{name}, before" for name in names}
    rows = cells(tab, "Number of events")
    for column, values in (("value", shown[: len(names)]), ("previous", shown[len(names) :])):
        place = answer["columns"].index(column)
        total = sum(number(cell) for row in rows for cell in row[1 + shown.index(values[0]) :][: len(values)])
        assert total == sum(row[place] for row in answer["rows"]) > 0
    assert tab.complaints == []


#: Pages that save what they show, with what is seen again when it is opened.
SAVES = {
    "explore?event=Product+Viewed&measure=devices&range=6h&interval=hour&by=platform&compare=previous&cumulative=1&"
    "filters=%5B%7B%22field%22%3A%22platform%22%2C%22op%22%3A%22is_set%22%7D%5D": "trends",
    "funnels?steps=%5B%22Product+Viewed%22%2C%22Product+Added%22%5D&window=600000&by=platform&range=24h": "funnel",
    "retention?unit=week&who=users&first=Product+Viewed&range=30d": "retention",
    "paths?way=end&event=Product+Added&depth=2&top=3&range=24h": "paths",
    "sessions?by=country&range=6h": "sessions",
    "sql?q=SELECT+1+AS+one": "sql",
}


#: Run at length: they differ from the others in their parameters only.
_SOAK = ("retention", "paths", "sessions")


@pytest.mark.parametrize(
    "place", [pytest.param(place, marks=pytest.mark.soak) if kind in _SOAK else place for place, kind in SAVES.items()]
)
def test_what_is_saved_is_listed_opens_as_it_was_and_can_be_deleted(tab, serving, place):
    page = tab.open(place)
    name = f"A & <b> {SAVES[place]}"
    page.get_by_role("button", name="Save").click()
    page.get_by_role("textbox", name="Name").fill(name)
    page.get_by_role("dialog").get_by_role("button", name="Save").click()
    page.get_by_role("dialog").wait_for(state="detached")
    saved = serving.request("GET", f"/v1/saved/{quote(name)}")[1]
    assert saved["kind"] == SAVES[place]
    assert serving.post(f"/v1/saved/{quote(name)}/run", {})[0] == 200
    tab.open("saved")
    page.get_by_role("link", name=name).click()
    page.wait_for_selector("#main > div:not([data-left]) h1:not(:text-is('Saved'))")
    tab.settle()
    opened = parse_qs(urlsplit(page.url).fragment.partition("?")[2])
    asked = parse_qs(place.partition("?")[2])
    assert {key: opened.get(key) for key in asked} == asked
    tab.open(f"saved?name={quote(name)}")
    assert page.locator("table tbody tr").count() > 0
    tab.open("saved")
    page.get_by_role("button", name=f"Delete {name}").click()
    page.get_by_role("button", name=f"Delete {name}").click()
    expect(page.locator("main")).not_to_contain_text(name)
    assert serving.request("GET", f"/v1/saved/{quote(name)}")[0] == 404
    tab.settle()
    assert tab.complaints == []


def test_a_saved_question_that_no_page_shows_is_answered_as_a_table(tab, serving):
    query = {
        "event": "Product Viewed",
        "from": "-6h",
        "to": "now",
        "filters": [{"any": [{"field": "platform", "op": "is_set"}]}],
    }
    status, _ = serving.request("PUT", "/v1/saved/grouped", orjson.dumps({"kind": "trends", "query": query}))
    assert status == 201
    page = tab.open("saved")
    page.get_by_role("link", name="grouped").click()
    page.wait_for_selector("h1:has-text('grouped')")
    tab.settle()
    status, answer = serving.post("/v1/saved/grouped/run", {})
    assert [number(row[1]) for row in cells(tab, "Answer")] == [row[1] for row in answer["rows"]]
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").click()
    assert Path(download.value.path()).read_text().startswith("time,value\n")
    assert serving.request("DELETE", "/v1/saved/grouped")[0] == 200
    assert tab.complaints == []


def test_a_bucket_that_is_not_final_says_so_and_what_is_still_expected(tab, serving):
    page = tab.open("explore?range=6h&interval=hour")
    end = (int(time.time() * 1000) // 3_600_000 + 1) * 3_600_000
    provisional = trends(serving, **{"from": iso(end - 7 * 3_600_000), "to": iso(end)})["meta"]["provisional"]
    assert provisional  # the hour that runs, at least
    chart = page.get_by_role("slider")
    chart.focus()
    chart.press("End")
    said = chart.get_attribute("aria-valuetext")
    assert "not complete yet, about" in said
    assert said.endswith("% still expected")
    chart.press("Home")
    is_open = len(provisional) >= 7
    assert ("not complete yet" in chart.get_attribute("aria-valuetext")) is is_open
    assert page.locator("svg .later").count() == 1


def test_a_chart_is_read_by_the_keyboard(tab, serving):
    page = tab.open("explore?interval=hour")
    chart = page.get_by_role("slider")
    chart.focus()
    chart.press("Home")
    chart.press("ArrowRight")
    row = cells(tab, "Number of events")[-2]
    said = chart.get_attribute("aria-valuetext")
    assert said.startswith(row[0])
    assert f"Number of events {row[1]}" in said
    assert " UTC: " in said
    assert page.locator(".tip").is_visible()
    chart.press("Escape")
    assert not page.locator(".tip").is_visible()


def test_sql_shows_the_answer_and_the_schema(tab, serving):
    page = tab.open("sql")
    page.get_by_label("Query").fill("SELECT event, count() AS n FROM events GROUP BY event ORDER BY n DESC, event")
    page.get_by_label("Query").press("Control+Enter")
    page.wait_for_selector("table")
    tab.settle()
    assert [[name, number(n)] for name, n in cells(tab, "Result")] == serving.sql(
        "SELECT event, count() AS n FROM events GROUP BY event ORDER BY n DESC, event"
    )
    page.get_by_role("button", name="n", exact=True).click()  # sorts by it, the largest first, then the other way round
    page.get_by_role("button", name="n", exact=True).click()
    counts = [number(row[1]) for row in cells(tab, "Result")]
    assert counts == sorted(counts)
    names = page.locator(".columns li").all_inner_texts()
    assert any(name.startswith("event_id") for name in names)


def test_errors_are_shown_as_the_api_words_them(tab, serving):
    query = "SELECT nothing FROM events"
    status, answer = serving.post("/v1/query/sql", {"query": query})
    assert status == 400
    tab.open(f"sql?q={query.replace(' ', '+')}")
    assert answer["error"][:80] in tab.text("[role=alert]")


def test_what_events_say_stays_text(tab, serving):
    bad = "<img src=x onerror=hurt=1>"
    assert serving.post("/v1/track", {"event": bad, "userId": "u", "messageId": "markup"})[0] == 200
    serving.flush()
    tab.open("sql?q=SELECT+event+FROM+events+WHERE+message_id+%3D+'markup'")
    assert cells(tab, "Result") == [[bad]]
    assert tab.page.evaluate("window.hurt") is None


def test_pipeline_shows_the_ledger_and_proves_it(tab, serving):
    serving.sql("SELECT 1")
    page = tab.open("pipeline")
    assert "Query p50" in tab.text(".figures")
    _, ledger = serving.request("GET", "/v1/pipeline")
    rows = cells(tab, "The ledger by hour")
    assert [number(row[2]) for row in reversed(rows)] == [hour["received"] for hour in ledger["hours"]]
    assert {row[1] for row in rows} == {"✓ balanced"}
    page.get_by_role("button", name="Prove the balance").click()
    page.wait_for_selector("text=every hour balances in both stores")
    _, audit = serving.request("GET", "/v1/audit")
    proof = cells(tab, "Proof by hour")
    assert sum(number(row[4]) for row in proof) == audit["stores"]["realtime"]["stored"]
    page.get_by_text("What is missing, by event and property").click()
    page.wait_for_selector("text=Properties of")
    tab.settle()
    assert tab.complaints == []


def funnel(serving, steps, window_ms):
    """How many devices took each step in order within the window from the first, by trying every start."""
    names = ", ".join(f"'{step}'" for step in steps)
    rows = serving.sql(
        f"SELECT device_id, event, toUnixTimestamp64Milli(timestamp) AS at FROM events WHERE event IN ({names}) "
        "AND timestamp >= now() - INTERVAL 1 DAY ORDER BY device_id, at"
    )
    levels = {}
    for device, group in itertools.groupby(rows, key=lambda row: row[0]):
        events = [(event, at) for _, event, at in group]
        levels[device] = max(
            (taken(events[i:], steps, window_ms) for i, (event, _) in enumerate(events) if event == steps[0]), default=0
        )
    return [sum(level > i for level in levels.values()) for i in range(len(steps))]


def taken(events, steps, window_ms):
    level, start = 0, events[0][1]
    for event, at in events:
        if level < len(steps) and event == steps[level] and at <= start + window_ms:
            level += 1
    return level


def test_funnels_count_devices_as_a_slow_twin_does(tab, serving):
    steps = ["Product Viewed", "Product Added", "Checkout Started"]
    page = tab.open(f"funnels?window=3600000&steps={orjson.dumps(steps).decode().replace(' ', '+')}")
    shown = [number(text.split()[0]) for text in page.locator(".funnel .amount").all_inner_texts()]
    assert shown == funnel(serving, steps, 3_600_000)
    assert shown[0] > shown[1] > 0
    assert tab.complaints == []


def test_retention_and_sessions_count_what_the_stores_hold(tab, serving):
    page = tab.open("retention")
    ((devices,),) = serving.sql("SELECT uniqExact(device_id) FROM events WHERE timestamp >= now() - INTERVAL 7 DAY")
    rows = [row.locator("th, td").all_inner_texts() for row in page.locator("table.heat tbody tr").all()]
    assert sum(number(row[1]) for row in rows) == devices
    page = tab.open("sessions?range=24h&by=country")
    counts = [number(text.split()[0]) for text in page.locator(".meters .amount").all_inner_texts()]
    ((sessions,),) = serving.sql(
        "SELECT uniqExact(session_id) FROM events WHERE timestamp >= toStartOfHour(now() - INTERVAL 1 DAY)"
    )
    assert sum(counts) == pytest.approx(sessions, rel=0.01)
    assert tab.complaints == []


@pytest.mark.parametrize(("way", "edge"), [("start", "(the session ends)"), ("end", "(the session begins)")])
def test_paths_show_what_the_api_answers(tab, serving, way, edge):
    tab.open(f"paths?way={way}&event=Product+Viewed&depth=2&top=3")
    now = int(time.time() * 1000)
    body = {way: "Product Viewed", "depth": 2, "top": 3, "from": iso(now - DAY_MS), "to": iso(now)}
    status, answer = serving.post("/v1/query/paths", body)
    assert status == 200, answer
    shown = [(int(row[0]), row[1], row[2], number(row[3])) for row in cells(tab, "From event to event")]
    expected = [(step, source or edge, target or edge, count) for step, source, target, count in answer["rows"]]
    assert {row[:3] for row in shown} == {row[:3] for row in expected}
    assert sum(row[3] for row in shown) == pytest.approx(sum(row[3] for row in expected), rel=0.02)
    assert tab.complaints == []


def test_a_long_timeline_goes_on_page_by_page(tab, serving):
    for first in range(0, 510, 100):
        batch = [
            {"type": "track", "event": "Tapped", "userId": "busy", "messageId": f"busy-{first + i}"} for i in range(100)
        ]
        assert serving.post("/v1/batch", {"batch": batch})[0] == 200
    serving.flush()
    page = tab.open("users?id=busy")
    assert page.locator(".timeline li").count() == 500
    page.get_by_role("button", name="Earlier events").click()
    page.wait_for_selector(".timeline >> nth=1")
    tab.settle()
    assert page.locator(".timeline li").count() == 600
    assert page.get_by_role("button", name="Earlier events").count() == 0
    assert tab.complaints == []


def test_live_tail_shows_an_event_soon_and_leads_to_its_user(tab, serving):
    page = tab.open("live?event=Just+Now")
    assert serving.post("/v1/track", {"event": "Just Now", "userId": "a b&c", "properties": {"n": 7}})[0] == 200
    page.wait_for_selector("td:has-text('a b&c')")
    page.get_by_role("link", name="a b&c").click()
    page.wait_for_selector(".timeline")
    assert "Just Now" in tab.text(".timeline")
    tab.settle()
    assert tab.complaints == []


def test_dead_letters_are_shown_and_replayed(tab, serving):
    _, before = serving.request("GET", "/v1/dead?limit=200&reason=unknown_type")
    assert before["letters"]
    assert {letter["reason"] for letter in before["letters"]} == {"unknown_type"}
    page = tab.open("pipeline")
    page.get_by_label("Reason").select_option("unknown_type")
    tab.settle()
    rows = cells(tab, "Samples of dead letters")
    assert {row[1] for row in rows} == {"unknown_type"}
    page.get_by_role("button", name="Replay").click()
    page.wait_for_selector("text=0 put back")
    _, after = serving.request("GET", "/v1/dead?limit=200&reason=unknown_type")
    assert len(after["letters"]) == len(before["letters"])  # they are as bad as before, and none is lost
    assert after["waiting"] == before["waiting"]


def test_samples_and_replay_say_what_they_take(serving):
    for path, words in (
        ("/v1/dead?limit=0", "limit must be a number from 1 to 200"),
        ("/v1/dead?limit=1e3", "limit must be a number"),
        ("/v1/dead?reason=no", "there is no reason 'no'; the reasons are not_an_object"),
        ("/v1/pipeline?hours=99999", "hours must be a number from 1 to"),
    ):
        status, answer = serving.request("GET", path)
        assert (status, words in answer["error"]) == (400, True), answer
    json = {"Content_Type": "application/json"}
    assert serving.request("GET", "/v1/replay")[0] == 405
    assert serving.request("POST", "/v1/replay", b"{}")[0] == 415
    for body in (b"{", b"[]", b'{"reasons": "all"}', b'{"reasons": ["no"]}', b'{"reason": []}'):
        assert serving.request("POST", "/v1/replay", body, **json)[0] == 400


def test_an_empty_server_says_what_to_do_and_a_key_is_asked_for(browser, tmp_path):
    serving = Serving(tmp_path, "--write-key", "secret")
    try:
        assert serving.request("POST", "/v1/replay", b"{}", Content_Type="application/json")[0] == 401
        with Tab(browser, serving.url) as tab:
            for place in ("overview", "pipeline"):
                page = tab.open(place)
                page.wait_for_selector("text=No events yet")
                assert f"eventmill generate --url {serving.url}" in tab.text()
            assert tab.complaints == []
            bad = orjson.dumps({"batch": [{"type": "purchase", "userId": "u", "messageId": "m"}], "writeKey": "secret"})
            assert serving.request("POST", "/v1/batch", bad)[0] == 200
            eventually(lambda: serving.request("GET", "/v1/dead")[1]["letters"])
            page = tab.open("explore")
            page = tab.open("pipeline")
            page.get_by_role("button", name="Replay").click()
            page.get_by_role("textbox", name="Key").fill("secret")
            page.get_by_role("button", name="Use key").click()
            page.wait_for_selector("text=1 still bad")
    finally:
        serving.kill()


def test_a_projects_key_is_asked_for_once_kept_for_the_tab_and_shows_its_events(browser, tmp_path):
    keys = ",".join(
        [
            "app key=w project=shop scopes=write",
            "other key=v project=bank scopes=write",
            "eyes key=r project=shop scopes=read",
        ]
    )
    serving = Serving(tmp_path, EVENTMILL_ACCESS__KEYS=keys)
    try:
        for key, event in (("w", "Shopped"), ("v", "Banked")):
            batch = {"batch": [{"type": "track", "event": event, "userId": "u", "messageId": event}], "writeKey": key}
            assert serving.post("/v1/batch", batch)[0] == 200
        serving.flush()
        with Tab(browser, serving.url) as tab:
            page = tab.page
            page.goto(f"{serving.url}/#/overview")
            page.get_by_role("textbox", name="Key").fill("r")
            page.get_by_role("button", name="Use key").click()
            page.wait_for_selector("main >> text=Shopped")
            assert page.evaluate("Object.values(sessionStorage)").count("r") == 1
            page.goto(f"{serving.url}/#/live")
            page.wait_for_selector("h1:has-text('Live')")
            page.wait_for_selector("main >> text=Shopped")
            assert "Banked" not in tab.text()
            assert "=r" not in page.url
    finally:
        serving.kill()
