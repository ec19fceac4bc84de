"""What tests need of the machine: had, or said to be missing."""

from __future__ import annotations

import os

import pytest

from testbed.packages import Unavailable


def had(make):
    """What ``make`` gives. Where it can't be had the test is skipped with the reason, and in CI it fails."""
    try:
        return make()
    except Unavailable as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))
