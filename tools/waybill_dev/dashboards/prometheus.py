"""A Prometheus that scrapes every process of the local stack, for as long as a block runs."""

import asyncio
import contextlib
import json
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from waybill_dev.base.probes import answers_http
from waybill_dev.base.program import Program, base_environment, spawn
from waybill_dev.base.state import LOOPBACK, State
from waybill_dev.bootstrap import debian
from waybill_dev.errors import LocalError

SCRAPE_SECONDS = 2
START_SECONDS = 30.0


@dataclass(frozen=True)
class Series:
    labels: dict[str, str]
    points: list[tuple[float, float]]
    """(Unix time, value)"""


@dataclass(frozen=True)
class Prometheus:
    port: int

    async def query(self, expression: str, start: float, end: float, step: float) -> list[Series]:
        """The expression over time (https://prometheus.io/docs/prometheus/latest/querying/api/#range-queries).

        Raises LocalError with Prometheus' own message.
        """
        parameters: dict[str, str | float] = {"query": expression, "start": start, "end": end, "step": step}
        async with httpx.AsyncClient() as client:
            answer = (await client.get(f"http://{LOOPBACK}:{self.port}/api/v1/query_range", params=parameters)).json()
        if "data" not in answer:
            raise LocalError(f"Prometheus refused {expression}: {answer['error']}")
        return [
            Series(row["metric"], [(float(time), float(value)) for time, value in row["values"]])
            for row in answer["data"]["result"]
        ]


@contextlib.asynccontextmanager
async def scraping(state: State, status: dict[str, Any], rules: Path) -> AsyncIterator[Prometheus]:
    """`status` is that of the stack: its processes are scraped as they are now. Raises LocalError."""
    with tempfile.TemporaryDirectory(prefix="prometheus-", dir=state.folder) as name, socket.socket() as reserved:
        folder = Path(name)
        reserved.bind((LOOPBACK, 0))
        port = reserved.getsockname()[1]
        reserved.close()
        settings = folder / "prometheus.json"  # YAML can be written as JSON
        settings.write_text(json.dumps(_settings(status, rules)))
        program = Program(
            name="prometheus",
            command=(
                _find_program(),
                f"--config.file={settings}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={LOOPBACK}:{port}",
            ),
            log=state.logs / "prometheus.log",
            ready=lambda: answers_http(port, "/-/ready"),
            environment=base_environment(),
        )
        process = spawn(program)
        try:
            await _until_ready(program, process)
            yield Prometheus(port)
        finally:
            process.terminate()
            await asyncio.to_thread(process.wait)


def _settings(status: dict[str, Any], rules: Path) -> dict[str, object]:
    targets = [
        {
            "targets": [process["url"].removeprefix("http://")],
            "labels": {"service": service, "role": process["role"], "job": "waybill"},
        }
        for service, found in status["services"].items()
        for process in found["processes"]
    ]
    return {
        "global": {"scrape_interval": f"{SCRAPE_SECONDS}s", "evaluation_interval": f"{SCRAPE_SECONDS}s"},
        "rule_files": [str(rules)],
        "scrape_configs": [{"job_name": "waybill", "static_configs": targets}],
    }


def _find_program() -> str:
    if (installed := shutil.which("prometheus")) is not None:
        return installed
    if debian.is_debian():
        return str(debian.unpacked("prometheus") / "usr/bin/prometheus")
    raise LocalError("no program called prometheus was found; install Prometheus")


async def _until_ready(program: Program, process: subprocess.Popen[bytes]) -> None:
    try:
        async with asyncio.timeout(START_SECONDS):
            while not await program.ready():
                if process.poll() is not None:
                    raise LocalError("Prometheus ended at once", log=program.log)
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise LocalError(f"Prometheus was not ready within {START_SECONDS:.0f} s", log=program.log) from None
