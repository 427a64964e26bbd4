"""`./dev bench`: each benchmark runs and reports figures. The figures depend on the machine."""

import json

import pytest

from waybill_dev.benchmarks import BENCHMARKS
from waybill_dev.testing import StackUnderTest, stack_folder

pytestmark = pytest.mark.slow


def test_each_benchmark_runs_and_reports_its_figures() -> None:
    # It boots its own system in that folder.
    reported = json.loads(StackUnderTest(stack_folder()).dev("bench", "--scale", "smoke", "--json"))
    assert list(reported) == list(BENCHMARKS)
    for name, rows in reported.items():
        assert rows, name
        assert all(row["figure"] is None or row["figure"] > 0 for row in rows), name
        assert any(row["goal"] is not None and row["met"] is not None for row in rows), name
