"""PostgreSQL fails over to a standby under load, by way of a standby that refuses writes."""

import asyncio
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from common.testing.plugin import eventually
from waybill_dev.chaos.count import count
from waybill_dev.chaos.run import until_settled
from waybill_dev.chaos.shoppers import buy, open_shop
from waybill_dev.chaos.subscriber import Subscriber
from waybill_dev.testing import StackUnderTest

from .conftest import Report
from .postgres_pair import running_pair

pytestmark = pytest.mark.slow
SHOPPERS = 8
ENOUGH = 100


def processes(status: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {process["name"]: process for service in status["services"].values() for process in service["processes"]}


async def readiness(status: dict[str, Any]) -> dict[str, int]:
    async with httpx.AsyncClient(timeout=20) as client:
        found = processes(status)
        answers = await asyncio.gather(*(client.get(f"{each['url']}/health/ready") for each in found.values()))
    return {name: answer.status_code for name, answer in zip(found, answers, strict=True)}


async def test_a_failover_of_postgres_under_load_loses_nothing_and_every_role_recovers_by_itself(
    stack: StackUnderTest,
    tmp_path: Path,
    unused_tcp_port_factory: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
    report: Report,
) -> None:
    """`stack` only waits for this test's turn: the system under test has servers of its own."""
    ports = (unused_tcp_port_factory(), unused_tcp_port_factory())
    async with running_pair(tmp_path, ports) as pair:
        monkeypatch.setenv("WAYBILL_POSTGRES_URL", pair.url)
        system = StackUnderTest(tmp_path / "state")
        await asyncio.to_thread(system.dev, "up", "--detach", "--owner", str(os.getpid()))
        try:
            status, since = system.status, datetime.now(UTC)
            purchases, shoppers, staff = await open_shop(status)
            subscriber = Subscriber(status["broker"]["amqp_url"])
            await subscriber.bind()
            listening = asyncio.create_task(subscriber.listen())
            ended = asyncio.Event()

            async def shop(number: int) -> None:
                while not ended.is_set():
                    await buy(shoppers[number], purchases.customers[number], staff, purchases, len(purchases.changes))

            async def ordered(since: int) -> bool:
                return len(purchases.changes) >= since + ENOUGH

            async def ready(code: int) -> bool:
                return set((await readiness(status)).values()) == {code}

            async with asyncio.TaskGroup() as group:
                for number in range(SHOPPERS):
                    group.create_task(shop(number))
                await eventually(lambda: ordered(0), within=60)
                await pair.lose_the_primary()
                await eventually(lambda: ready(503), within=30)
                before = len(purchases.changes)
                await pair.promote()
                promoted = time.monotonic()
                await eventually(lambda: ready(200), within=30)
                recovered = time.monotonic() - promoted
                await eventually(lambda: ordered(before), within=60)
                ended.set()
            mails = system.folder / "logs" / "mail.log"
            lines = await until_settled(lambda: count(status, purchases, subscriber.received, since, mails))
            restarts = {name: each["restarts"] for name, each in processes(system.status).items() if each["restarts"]}
            await subscriber.unbind()
            listening.cancel()
            for shopper in [*shoppers, staff]:
                await shopper.close()
        finally:
            await asyncio.to_thread(system.dev, "down")
    report(f"{len(purchases.changes)} orders, all roles ready {recovered:.1f} s after the promotion")
    assert [line for line in lines if not line.is_correct] == []
    assert restarts == {}
