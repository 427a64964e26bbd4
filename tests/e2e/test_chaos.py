"""`./dev chaos`: orders under random kills of everything, and the count."""

import re
from typing import Any

import pytest

from .conftest import Tell

pytestmark = pytest.mark.slow


def test_orders_under_random_kills_of_everything_lose_double_and_disorder_nothing(stack: Any, tell: Tell) -> None:
    said = stack.dev("chaos", "--orders", "1000")
    assert "lost: 0   double effects: 0   order violations: 0" in said
    survived = re.search(r"survived: (\d+)", said)
    assert survived is not None
    assert int(survived[1]) > 0
    tell(said)
