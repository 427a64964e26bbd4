"""Runs Spin (https://spinroot.com): for a model and bounds it writes a checker in C, which explores all states."""

import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from waybill_dev.bootstrap import debian
from waybill_dev.errors import LocalError

COMPILERS: Final = ("gcc", "clang", "cc")
ADVICE: Final = "it requires Spin and a C compiler (on Debian and Ubuntu: sudo apt-get install spin gcc)"
OPTIONS: Final = ("-w", "-DNOREDUCE", "-DVECTORSZ=512", "-DMEMLIM=8000")
ALL_STATES: Final = ("-O2",)
SHORTEST: Final = ("-O0", "-DBFS")  # few states: compiling would take longer than the search
"""Searched by breadth, so that what is found first is a shortest one."""
CYCLES: Final = ("-O2", "-DNP")
AT_RANDOM: Final = ("-O2", "-DBITSTATE", "-DT_RAND", "-DP_RAND")
_BROKEN: Final = "BROKEN: "  # how the model marks a promise that does not hold


@dataclass(frozen=True)
class Result:
    states: int
    seconds: float
    broken: str | None
    """The promise that does not hold, in the model's words."""
    steps: Sequence[str] = ()
    """What leads to it."""


@dataclass(frozen=True)
class Spin:
    program: str
    compiler: str

    def run(
        self,
        model: Path,
        settings: Mapping[str, int | str],
        kind: Sequence[str] = ALL_STATES,
        *,
        seed: int = 0,
        within: float | None = None,
    ) -> Result:
        """Explores the states of `model`, for `within` seconds at most. Raises LocalError if it cannot."""
        defined = [f"-D{name}={value}" for name, value in settings.items()]
        with tempfile.TemporaryDirectory(prefix="waybill-model-") as name:
            folder = Path(name)
            _output(self.program, *defined, "-a", str(model), folder=folder)
            _output(self.compiler, *OPTIONS, *kind, "-o", "pan", "pan.c", folder=folder)
            search = ["-l"] if kind == CYCLES else []
            search += ["-w28", f"-RS{seed}"] if kind == AT_RANDOM else []
            began = time.monotonic()
            report = _interrupted(["./pan", "-m100000", "-n", *search], folder, within)
            seconds = time.monotonic() - began
            states = re.search(r"([\d.e+]+) states, stored", report)
            errors = re.search(r"errors: (\d+)", report)
            if states is None or errors is None or "max search depth too small" in report:
                raise LocalError(f"Spin's checker failed:\n{report}")
            if "Search not completed" in report and errors[1] == "0" and within is None:
                raise LocalError(f"Spin's checker did not explore all states:\n{report}")
            if errors[1] == "0":
                return Result(int(float(states[1])), seconds, None)
            steps = self._steps(model, defined, folder)
            broken = [step.removeprefix(_BROKEN) for step in steps if step.startswith(_BROKEN)]
            steps = [step for step in steps if not step.startswith(_BROKEN)]
            return Result(int(float(states[1])), seconds, (broken or ["a run never ends"])[0], steps)

    def _steps(self, model: Path, defined: Sequence[str], folder: Path) -> list[str]:
        trail = next(folder.glob("*.trail"))
        lines = _output(self.program, *defined, "-t", "-T", "-k", trail.name, str(model), folder=folder).splitlines()
        end = next((number for number, line in enumerate(lines) if line.startswith("spin:")), len(lines))
        return [line.strip() for line in lines[:end] if line.strip()]


def find_spin() -> Spin | None:
    """The installed one, or the one that was unpacked before."""
    program = shutil.which("spin")
    if program is None and debian.is_debian() and (tree := debian.unpacked_before("spin")) is not None:
        program = str(tree / "usr/bin/spin")
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    return Spin(program, compiler) if program is not None and compiler is not None else None


def get_spin() -> Spin:
    """As `find_spin`, after unpacking Debian's package if it is needed. Raises LocalError that says what to install."""
    if any(map(shutil.which, COMPILERS)) and shutil.which("spin") is None and debian.is_debian():
        debian.unpacked("spin")
    if (spin := find_spin()) is None:
        raise LocalError(f"the model cannot be checked: {ADVICE}")
    return spin


def _output(*words: str, folder: Path) -> str:
    done = subprocess.run(words, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0 and "-t" not in words:  # the replay of a broken promise ends with an error
        raise LocalError(f"{words[0]} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def _interrupted(words: Sequence[str], folder: Path, within: float | None) -> str:
    """The program's report. An interrupted checker reports what it has explored."""
    with subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            return process.communicate(timeout=within)[0]
        except subprocess.TimeoutExpired:
            process.send_signal(2)
            return process.communicate()[0]
