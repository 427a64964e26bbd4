"""`./dev bench`: that each benchmark runs and tells something. What it tells depends on the machine."""

import json

import pytest

from waybill_dev.benchmarks import BENCHMARKS
from waybill_dev.testing import StackUnderTest, stack_folder

pytestmark = pytest.mark.slow


def test_each_benchmark_runs_and_tells_its_figures() -> None:
    # It boots a system of its own, in a folder of that name.
    told = json.loads(StackUnderTest(stack_folder()).dev("bench", "--scale", "smoke", "--json"))
    assert list(told) == list(BENCHMARKS)
    for name, rows in told.items():
        assert rows, name
        assert all(row["figure"] is None or row["figure"] > 0 for row in rows), name
        assert any(row["goal"] is not None and row["met"] is not None for row in rows), name
