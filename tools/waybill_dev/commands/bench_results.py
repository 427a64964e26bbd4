"""The results of `./dev bench`: each row is shown and written to a file as soon as it is known."""

import json
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from waybill_dev.base.state import find_state
from waybill_dev.benchmarks import BENCHMARKS

Row = dict[str, Any]
_WIDTH = 58
"""Columns of what a row measured."""


def failure(cause: str) -> Row:
    row: Row = dict.fromkeys(("key", "figure", "ratio", "goal", "bound", "met"))
    return {**row, "what": "what is not shown above", "unit": "", "missing": f"failed: {cause}"}


class Results:
    def __init__(self, file: Path, started: str, scale: str) -> None:
        self.file = file
        self.scale = scale
        self._run: dict[str, Any] = {"started": started, "scale": scale, "machine": _machine(), "benchmarks": {}}
        self._began = 0.0

    @classmethod
    def read(cls, file: Path) -> "Results":
        run = json.loads(file.read_text())
        results = cls(file, run["started"], run["scale"])
        results._run = run
        return results

    @property
    def failures(self) -> int:
        """Rows without a figure that should have one."""
        rows = [row for benchmark in self._run["benchmarks"].values() for row in benchmark["rows"]]
        return sum((row["missing"] or "").startswith("failed") for row in rows)

    def begin(self, name: str) -> None:
        self._began = time.monotonic()
        self._run["benchmarks"][name] = {"load": os.getloadavg()[0], "seconds": None, "rows": []}
        _show_title(name)

    def add(self, name: str, row: Row) -> None:
        self._run["benchmarks"][name]["rows"].append(row)
        self._write()
        _show(row)

    def end(self, name: str) -> None:
        self._run["benchmarks"][name]["seconds"] = round(time.monotonic() - self._began, 1)
        self._write()

    def show(self, names: Sequence[str]) -> None:
        for name, benchmark in self._run["benchmarks"].items():
            if not names or name in names:
                _show_title(name)
                for row in benchmark["rows"]:
                    _show(row)

    def _write(self) -> None:
        """A rename is atomic: whoever reads the file sees complete rows."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        new = self.file.with_name(f"{self.file.name}.new")
        new.write_text(json.dumps(self._run, indent=1, ensure_ascii=False) + "\n")
        new.rename(self.file)


def _machine() -> dict[str, Any]:
    command = ["git", "-C", str(find_state().checkout), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    cores = len(os.sched_getaffinity(0))
    return {"cores": cores, "system": platform.platform(), "python": platform.python_version(), "commit": commit}


def _show_title(name: str) -> None:
    print(f"\n{name}: {BENCHMARKS[name].sentence}", flush=True)


def _show(row: Row) -> None:
    what = row["what"] if len(row["what"]) <= _WIDTH else f"{row['what'][: _WIDTH - 1]}…"
    if row["missing"] is not None:
        print(f"  {what:<{_WIDTH}} {row['missing']}", flush=True)
        return
    figure = "" if row["figure"] is None else f"{row['figure']:,.{_digits(row['figure'])}f} {row['unit']}".strip()
    ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
    met = {None: "", True: "met", False: "missed"}[row["met"]]
    print(f"  {what:<{_WIDTH}} {figure:>13} {ratio:>6}   {row['goal'] or '':<22} {met}".rstrip(), flush=True)


def _digits(figure: float) -> int:
    return 0 if figure >= 100 else 1 if figure >= 10 else 2 if figure >= 0.1 or figure == 0 else 4
