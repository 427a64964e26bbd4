"""What an operator does with `./dev`, and the commands of the README."""

import asyncio
import os
import re
import secrets
import shutil
import signal
import subprocess
import time
from collections import Counter
from typing import Any

import psutil
import pytest

from common.testing.plugin import eventually
from waybill_dev.testing import SETTINGS, StackUnderTest

# An error response is a failure, also on the left of a pipe.
STRICT = 'set -euo pipefail; curl() { command curl --fail-with-body "$@"; }\n'


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_commands_of_the_readme_work(stack: StackUnderTest) -> None:
    readme = (stack.checkout / "README.md").read_text()
    found = re.search(r"## Call it.*?```sh\n(.*?)```", readme, re.DOTALL)
    assert found
    done = subprocess.run(  # noqa: S603
        ["/bin/bash", "-c", STRICT + found[1].replace("ada@", f"ada-{secrets.token_hex(4)}@")],
        cwd=stack.checkout,
        env={**os.environ, **SETTINGS, "WAYBILL_STATE_DIR": str(stack.folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"status":"placed"' in done.stdout


@pytest.mark.parametrize("words", [("stop", "nobody"), ("scale", "orders:cook=2"), ("scale", "orders=2")])
def test_an_unknown_name_is_refused_with_a_sentence(stack: StackUnderTest, words: tuple[str, ...]) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        stack.dev(*words)
    assert refused.value.returncode == 1
    assert "./dev: " in refused.value.stderr
    assert "Traceback" not in refused.value.stderr


@pytest.mark.slow
async def test_scaling_and_restarting_fail_no_request(stack: StackUnderTest, customer: Any) -> None:
    answers: Counter[int] = Counter()
    done = asyncio.Event()

    async def order() -> None:
        while not done.is_set():
            answers[(await customer.order()).status_code] += 1

    buyers = [asyncio.create_task(order()) for _ in range(4)]
    for words in (("scale", "orders:api=2"), ("restart", "orders:api"), ("scale", "orders:api=1")):
        await asyncio.to_thread(stack.dev, *words)
    done.set()
    await asyncio.gather(*buyers)
    assert set(answers) == {201}


async def test_a_killed_process_is_restarted_within_5_s_and_status_shows_it(stack: StackUnderTest) -> None:
    def relay() -> dict[str, Any]:
        processes = stack.status["services"]["orders"]["processes"]
        found: dict[str, Any] = next(process for process in processes if process["role"] == "relay")
        return found

    before = relay()
    killed = time.time()
    os.kill(before["pid"], signal.SIGKILL)

    async def replaced() -> dict[str, Any] | None:
        after = await asyncio.to_thread(relay)
        return after if after["pid"] not in (None, before["pid"]) else None

    after = await eventually(replaced, within=10)
    assert after is not None
    assert (after["restarts"], after["last_exit"]) == (before["restarts"] + 1, -9)
    assert psutil.Process(after["pid"]).create_time() - killed < 5
