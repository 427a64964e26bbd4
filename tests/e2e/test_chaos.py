"""`./dev chaos`: orders under random kills of every process."""

import re
from typing import Any

import pytest

from .conftest import Report

pytestmark = pytest.mark.slow


def test_random_kills_lose_duplicate_and_reorder_nothing(stack: Any, report: Report) -> None:
    output = stack.dev("chaos", "--orders", "1000")
    assert "lost: 0   double effects: 0   order violations: 0" in output
    survived = re.search(r"survived: (\d+)", output)
    assert survived is not None
    assert int(survived[1]) > 0
    report(output)
