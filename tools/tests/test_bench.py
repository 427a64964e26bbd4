"""`./dev bench` keeps the rows that a benchmark has printed, however it ends."""

import json
import sys
from pathlib import Path

from waybill_dev.commands.bench import rows
from waybill_dev.commands.bench_results import Results, Row

ROW = {"what": "GET", "key": None, "figure": 3.0, "unit": "/s", "ratio": None, "goal": None, "bound": None, "met": None}
PRINT = f"import json, time, sys; print(json.dumps({ROW | {'missing': None}!r}), flush=True);"


def run(tmp_path: Path, ending: str, *, limit: float = 60) -> list[Row]:
    command = [sys.executable, "-c", PRINT + ending]
    return list(rows(command, folder=tmp_path, environment={}, limit=limit, log=tmp_path / "log"))


def test_a_benchmark_that_takes_too_long_keeps_its_rows_and_is_reported(tmp_path: Path) -> None:
    first, last = run(tmp_path, "time.sleep(3600)", limit=1)
    assert first["figure"] == 3.0
    assert last["missing"] == "failed: stopped after 1 s"


def test_a_benchmark_that_fails_keeps_its_rows_and_names_its_error(tmp_path: Path) -> None:
    first, last = run(tmp_path, "raise ConnectionError('no broker')")
    assert first["figure"] == 3.0
    assert last["missing"] == "failed: ConnectionError: no broker"


def test_each_row_is_in_the_file_as_soon_as_it_is_known(tmp_path: Path) -> None:
    results = Results(tmp_path / "runs" / "run.json", "2026-01-01T00-00-00Z", "smoke")
    results.begin("reads")
    results.add("reads", ROW | {"missing": None})
    kept = json.loads(results.file.read_text())
    assert [row["what"] for row in kept["benchmarks"]["reads"]["rows"]] == ["GET"]
    results.add("reads", ROW | {"missing": "failed: no broker"})
    results.add("reads", ROW | {"missing": "skipped: not in this version"})
    assert Results.read(results.file).failures == 1
