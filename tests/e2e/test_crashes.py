"""Each process of the whole system is killed, and its servers are restarted, during a rush of orders."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import psutil
import pytest

from common.testing.plugin import eventually
from waybill_dev.servers.rabbitmq_finder import find_programs

from .conftest import Mailbox, Person, Report

pytestmark = pytest.mark.slow

PROCESSES = [
    "orders:api",
    "orders:relay",
    "orders:consume",
    "notifier:api",
    "notifier:consume",
    "notifier:deliver",
    "users:api",
    "users:relay",
    "auth:api",
    "auth:relay",
    "auth:consume",
    "gateway",
    "mail",
    "rabbitmq",
    "postgres",
]


class Rush:
    """Orders of one customer. `accepted` are those with the response 201."""

    def __init__(self, customer: Person, mailbox: Mailbox) -> None:
        self.accepted: set[str] = set()
        self._customer = customer
        self._mailbox = mailbox

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Places 200 orders. At the start of the block 40 are accepted; at its end all were requested."""
        buying = asyncio.gather(*(self._order(25) for _ in range(8)))

        async def some() -> bool:
            return len(self.accepted) >= 40

        await eventually(some, within=30)
        yield
        await buying

    async def _order(self, count: int) -> None:
        for _ in range(count):
            with contextlib.suppress(httpx.TransportError):
                answer = await self._customer.order()
                if answer.status_code == 201:
                    self.accepted.add(answer.json()["id"])

    async def count(self) -> tuple[int, int, int]:
        """(accepted, lost, duplicated), once each order has a mail, or after a minute."""

        async def all_mailed() -> bool:
            return all(self._mails().values())

        with contextlib.suppress(TimeoutError):
            await eventually(all_mailed, within=60)
        mails = self._mails()
        lost = sum(not times for times in mails.values())
        return len(mails), lost, sum(max(times - 1, 0) for times in mails.values())

    def _mails(self) -> dict[str, int]:
        bodies = self._mailbox.bodies(self._customer.email)
        return {order: sum(order in body for body in bodies) for order in self.accepted}


@pytest.fixture
def rush(customer: Person, mailbox: Mailbox) -> Rush:
    return Rush(customer, mailbox)


async def settled(rush: Rush, report: Report) -> None:
    accepted, lost, duplicated = await rush.count()
    report(f"{accepted} orders accepted: lost {lost}, mails duplicated {duplicated}")
    assert accepted >= 40
    assert (lost, duplicated) == (0, 0)


@pytest.mark.parametrize("victim", PROCESSES)
async def test_the_notification_survives_kill_9_of(victim: str, stack: Any, rush: Rush, report: Report) -> None:
    if victim == "rabbitmq":
        # RabbitMQ 3.10 may lose queues declared in the last minutes, unless the node was stopped cleanly once.
        stack.dev("restart", victim)
    async with rush.running():
        os.kill(pid_of(stack.status, victim), signal.SIGKILL)
    await settled(rush, report)


@pytest.mark.parametrize("server", ["rabbitmq", "postgres"])
async def test_the_notification_survives_a_restart_of(server: str, stack: Any, rush: Rush, report: Report) -> None:
    async with rush.running():
        await asyncio.to_thread(stack.dev, "restart", server)
    await settled(rush, report)


async def test_an_api_killed_after_the_commit_and_before_the_publish(stack: Any, rush: Rush, report: Report) -> None:
    database = await asyncpg.connect(stack.status["services"]["orders"]["database_url"])
    try:
        # The test holds the relay's lock, so that committed events stay in the outbox.
        await database.execute("SELECT pg_advisory_lock(hashtext('outbox-relay'))")
        async with rush.running():
            os.kill(pid_of(stack.status, "orders:api"), signal.SIGKILL)
        assert await database.fetchval("SELECT count(*) FROM outbox") >= len(rush.accepted)
    finally:
        await database.close()
    await settled(rush, report)


async def test_orders_are_accepted_during_a_memory_alarm_of_the_broker_and_published_after_it(
    stack: Any, rush: Rush, mailbox: Mailbox, customer: Person, report: Report
) -> None:
    broker = stack.status["broker"]["pid"]
    rabbitmqctl(broker, "set_vm_memory_high_watermark", "0.00000001")
    try:
        async with rush.running():
            pass
        assert len(rush.accepted) == 200
        # Messages that the relay was sending when the alarm began may have passed.
        assert len(mailbox.to(customer.email)) < 200
    finally:
        rabbitmqctl(broker, "set_vm_memory_high_watermark", "0.4")
    await settled(rush, report)


def rabbitmqctl(pid: int, *words: str) -> None:
    """Runs `rabbitmqctl` in the environment of the node with that pid."""
    programs = find_programs()
    assert programs is not None, "a broker in a container can't be controlled from here"
    command = Path(programs.server).with_name("rabbitmqctl")
    environment = psutil.Process(pid).environ()
    subprocess.run([command, *words], env=environment, check=True, capture_output=True)  # noqa: S603 - ours


def pid_of(status: dict[str, Any], name: str) -> int:
    pids = {process["name"]: process["pid"] for process in status["processes"]}
    return int(pids[name.replace(":", "-")])
