"""`./dev bench`: each benchmark runs and reports figures. The figures depend on the machine."""

import json
from pathlib import Path

import pytest

from waybill_dev.benchmarks import BENCHMARKS
from waybill_dev.testing import StackUnderTest, stack_folder

pytestmark = pytest.mark.slow


def test_each_benchmark_runs_and_reports_its_figures(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    # It boots its own system in that folder. Exit code 0: every row was measured.
    StackUnderTest(stack_folder()).dev("bench", "--scale", "smoke", "--json", str(file))
    benchmarks = json.loads(file.read_text())["benchmarks"]
    assert list(benchmarks) == list(BENCHMARKS)
    for name, benchmark in benchmarks.items():
        rows = [row for row in benchmark["rows"] if row["missing"] is None]
        assert rows, name
        assert all(row["figure"] is None or row["figure"] >= 0 for row in rows), name
        assert name == "fanout" or any(row["met"] is not None for row in rows), name
