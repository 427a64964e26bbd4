import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from waybill_dev.base.state import State, write_json
from waybill_dev.errors import LocalError
from waybill_dev.supervision import control, leftovers


async def test_an_action_is_performed_and_its_result_returned(state: State) -> None:
    async def double(number: int) -> int:
        return 2 * number

    async with await control.serve(state, {"double": double}):
        assert await asyncio.to_thread(control.call, state, "double", 21) == 42


async def test_the_error_of_an_action_reaches_the_caller(state: State) -> None:
    async def refuse() -> None:
        raise LocalError("not like this")

    async with await control.serve(state, {"refuse": refuse}):
        with pytest.raises(LocalError, match="not like this"):
            await asyncio.to_thread(control.call, state, "refuse")


async def test_a_caller_without_the_token_gets_no_response(state: State) -> None:
    async def status() -> str:
        return "secret"

    async with await control.serve(state, {"status": status}):
        address = json.loads(state.supervisor_file.read_text())
        write_json(state.supervisor_file, {**address, "token": "guessed"})
        with pytest.raises(control.NotRunning):
            await asyncio.to_thread(control.call, state, "status")


def test_without_a_supervisor_the_error_says_so(state: State) -> None:
    with pytest.raises(control.NotRunning, match="not up"):
        control.call(state, "status")


def test_after_a_killed_supervisor_the_error_says_so(state: State) -> None:
    write_json(state.supervisor_file, {"port": state.port("unused"), "token": "x"})
    with pytest.raises(control.NotRunning, match="not up"):
        control.call(state, "status")


def test_processes_left_by_a_killed_supervisor_are_ended(state: State) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], start_new_session=True)
    leftovers.record(state, {"orders-api": process.pid})
    assert leftovers.end_leftovers(state) == ["orders-api"]
    assert process.poll() is not None
    assert leftovers.end_leftovers(state) == []


def test_a_pid_that_belongs_to_another_process_now_is_left_alone(state: State) -> None:
    record: Path = state.folder / "processes.json"
    record.write_text(json.dumps({"orders-api": [os.getpid(), psutil.Process().create_time() - 100]}))
    assert leftovers.end_leftovers(state) == []
