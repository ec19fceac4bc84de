"""The dashboard's files as they are served."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

from eventmill.dashboard import assets
from eventmill.dashboard.assets import PREFIX, Dashboard
from eventmill.net.messages import Request

STATIC = Path(assets.__file__).parent / "static"


@pytest.fixture(scope="module")
def dashboard():
    return Dashboard()


def ask(dashboard, path="/", method="GET", **headers):
    return dashboard.answer(Request(method, path, {}, {k.replace("_", "-"): v for k, v in headers.items()}, b""))


def test_every_file_is_served_with_its_type(dashboard):
    named = {path.relative_to(STATIC).as_posix() for path in STATIC.rglob("*") if path.is_file()}
    assert set(dashboard.paths) == {"/", *(PREFIX + name for name in named - {"index.html"})}
    for name in named - {"index.html"}:
        answer = ask(dashboard, PREFIX + name)
        assert answer.status == 200
        assert answer.body == (STATIC / name).read_bytes()
        assert answer.content_type == assets.CONTENT_TYPES[Path(name).suffix]
    assert ask(dashboard).content_type == "text/html; charset=utf-8"


def test_the_policy_allows_nothing_but_files_of_this_server(dashboard):
    policy = dict(part.split(" ", 1) for part in ask(dashboard).headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert {policy[name] for name in ("script-src", "style-src", "img-src", "connect-src")} == {"'self'"}
    assert policy["require-trusted-types-for"] == "'script'"


def test_a_client_that_has_the_file_is_told_so(dashboard):
    first = ask(dashboard)
    tag = first.headers["ETag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = ask(dashboard, if_none_match=known)
        assert (again.status, again.body, again.headers["ETag"]) == (304, b"", tag)
    assert ask(dashboard, if_none_match='"other"').status == 200


@pytest.mark.parametrize(
    ("accepted", "packed"),
    [("gzip, br", True), ("br;q=1, GZIP;q=0.5", True), ("gzip;q=0", False), ("gzip;q=0.0", False), ("", False), ("br", False)],
)
def test_it_is_compressed_for_whoever_takes_that(dashboard, accepted, packed):
    plain, answer = ask(dashboard), ask(dashboard, accept_encoding=accepted)
    assert (answer.headers.get("Content-Encoding") == "gzip") is packed
    assert (gzip.decompress(answer.body) if packed else answer.body) == plain.body
    assert (answer.headers["ETag"] != plain.headers["ETag"]) is packed
    assert answer.headers["Vary"] == "Accept-Encoding"


def test_what_is_not_there_and_other_methods_are_refused(dashboard):
    assert ask(dashboard, PREFIX + "../assets.py").status == 404
    assert ask(dashboard, PREFIX).status == 404
    assert ask(dashboard, method="POST").status == 405
    assert ask(dashboard, method="HEAD").status == 200
    assert not dashboard.answers("/v1/batch")


def test_all_that_is_asked_for_is_served_and_comes_from_here(dashboard):
    for path in STATIC.rglob("*.*"):
        if path.suffix == ".js":
            for target in re.findall(r"""(?:from|import)\s*\(?\s*["']([^"']+)["']""", path.read_text()):
                assert target.startswith("."), f"{path.name} imports {target}"
                found = (path.parent / target).resolve().relative_to(STATIC)
                assert PREFIX + found.as_posix() in dashboard.paths, f"{path.name} imports {target}"
        elif path.suffix in (".html", ".css"):
            for target in re.findall(r"""(?:src|href)="([^"#]+)|url\(["']?([^)"']+)""", path.read_text()):
                assert "".join(target) in dashboard.paths, f"{path.name} asks for {target}"


def test_nothing_that_the_policy_would_stop_is_written():
    for path in STATIC.rglob("*.*"):
        text = path.read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|\beval\(|document\.write|new Function", text), path
        if path.suffix == ".html":
            assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\bsrc=)", text)


def test_files_stay_small():
    for path in STATIC.rglob("*.js"):
        assert len(path.read_text().splitlines()) < 400, path
