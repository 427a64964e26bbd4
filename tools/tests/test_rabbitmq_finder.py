"""Which RabbitMQ runs: programs, a container, or none, with advice."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from common.testing.plugin import eventually
from waybill_dev.base.state import State
from waybill_dev.servers import rabbitmq_container
from waybill_dev.servers.rabbitmq import RabbitMQ
from waybill_dev.servers.rabbitmq_finder import Container
from waybill_dev.supervision.process import Process, Status

ENGINE = rabbitmq_container.find_engine()


def test_without_any_rabbitmq_the_error_says_what_to_install() -> None:
    script = "from waybill_dev.servers.rabbitmq_finder import find_broker; find_broker()"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PATH": "/nowhere", "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    for advice in ("apt-get install rabbitmq-server", "dnf install", "brew install", "WAYBILL_AMQP_URL"):
        assert advice in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(ENGINE is None, reason="no docker or podman answers")
async def test_a_container_runs_like_a_program_and_comes_back_with_its_data_after_a_kill(state: State) -> None:
    assert ENGINE is not None
    rabbitmq_container.pull(ENGINE)
    server = RabbitMQ(state, Container(ENGINE), {"orders": "secret"})
    (program,) = server.programs()
    node = Process(program, role="server")
    node.start()
    try:
        await node.until_running()
        assert node.pid is not None
        os.kill(node.pid, signal.SIGKILL)

        async def again() -> bool:
            return node.restarts > 0 and node.status is Status.RUNNING

        await eventually(again, within=90)
    finally:
        await node.stop()
    name = rabbitmq_container.container_name(server.folder)

    async def removed() -> bool:
        words = (ENGINE, "ps", "--all", "--quiet", "--filter", f"name={name}")
        left = await asyncio.create_subprocess_exec(*words, stdout=subprocess.PIPE)
        return not (await left.communicate())[0]

    await eventually(removed, within=30)
