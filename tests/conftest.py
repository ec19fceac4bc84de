"""Fixtures that several test files share; its place puts ``tests/`` on the import path."""

from __future__ import annotations

import pytest

from serving import Serving


@pytest.fixture
def serve(tmp_path):
    """Starts ``eventmill serve`` processes; all are ended with the test."""
    running: list[Serving] = []

    def start(*arguments: str, data=None, **environ: str) -> Serving:
        running.append(Serving(data or tmp_path / "data", *arguments, **environ))
        return running[-1]

    yield start
    for one in running:
        one.kill()
