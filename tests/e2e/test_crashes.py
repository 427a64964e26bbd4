"""Each process of the whole system killed, and its servers stopped, in the middle of a rush of orders."""

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

from .conftest import Mailbox, Person, Tell

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
    """Orders of one customer: `accepted` are those answered 201."""

    def __init__(self, customer: Person, mailbox: Mailbox) -> None:
        self.accepted: set[str] = set()
        self._customer = customer
        self._mailbox = mailbox

    @contextlib.asynccontextmanager
    async def under_way(self) -> AsyncIterator[None]:
        """200 orders, 40 of them accepted when the block begins and all asked for when it has ended."""
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
        """(accepted, lost, doubled), once a mail of each has come or none comes any more."""

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


async def settled(rush: Rush, tell: Tell) -> None:
    accepted, lost, doubled = await rush.count()
    tell(f"{accepted} orders accepted: lost {lost}, mails doubled {doubled}")
    assert accepted >= 40
    assert (lost, doubled) == (0, 0)


@pytest.mark.parametrize("victim", PROCESSES)
async def test_the_notification_survives_kill_9_of(victim: str, stack: Any, rush: Rush, tell: Tell) -> None:
    if victim == "rabbitmq":
        # A node knows of queues declared in the last minutes for certain only once it was stopped in order (3.10).
        stack.dev("restart", victim)
    async with rush.under_way():
        os.kill(pid_of(stack.status, victim), signal.SIGKILL)
    await settled(rush, tell)


@pytest.mark.parametrize("server", ["rabbitmq", "postgres"])
async def test_the_notification_survives_a_restart_of(server: str, stack: Any, rush: Rush, tell: Tell) -> None:
    async with rush.under_way():
        await asyncio.to_thread(stack.dev, "restart", server)
    await settled(rush, tell)


async def test_an_api_killed_after_the_commit_and_before_the_publish(stack: Any, rush: Rush, tell: Tell) -> None:
    database = await asyncpg.connect(stack.status["services"]["orders"]["database_url"])
    try:
        # The relay's place is taken: what is committed stays in the outbox for as long.
        await database.execute("SELECT pg_advisory_lock(hashtext('outbox-relay'))")
        async with rush.under_way():
            os.kill(pid_of(stack.status, "orders:api"), signal.SIGKILL)
        assert await database.fetchval("SELECT count(*) FROM outbox") >= len(rush.accepted)
    finally:
        await database.close()
    await settled(rush, tell)


async def test_orders_are_accepted_during_a_memory_alarm_of_the_broker_and_told_after_it(
    stack: Any, rush: Rush, mailbox: Mailbox, customer: Person, tell: Tell
) -> None:
    broker = stack.status["broker"]["pid"]
    rabbitmqctl(broker, "set_vm_memory_high_watermark", "0.00000001")
    try:
        async with rush.under_way():
            pass
        assert len(rush.accepted) == 200
        # What was in the relay's hands when the alarm came may have passed.
        assert len(mailbox.to(customer.email)) < 200
    finally:
        rabbitmqctl(broker, "set_vm_memory_high_watermark", "0.4")
    await settled(rush, tell)


def rabbitmqctl(pid: int, *words: str) -> None:
    """For the node with that pid, whose environment tells where it is."""
    programs = find_programs()
    assert programs is not None, "a broker that runs in a container is not steered from here"
    command = Path(programs.server).with_name("rabbitmqctl")
    environment = psutil.Process(pid).environ()
    subprocess.run([command, *words], env=environment, check=True, capture_output=True)  # noqa: S603 - ours


def pid_of(status: dict[str, Any], name: str) -> int:
    pids = {process["name"]: process["pid"] for process in status["processes"]}
    return int(pids[name.replace(":", "-")])
