"""A consumer with several queues: order of each aggregate, shares of processes, and changes of the number."""

import asyncio
import os
import random
from collections import Counter
from typing import Final

import pytest
from aio_pika.abc import AbstractChannel

from common.db.database import Database, new_id
from common.settings import ServiceSettings
from common.testing.plugin import eventually

from .partitioned_shop import PartitionedShop

EVENTS: Final = int(os.environ.get("WAYBILL_ORDER_EVENTS", "3500"))
VERSIONS: Final = 5


@pytest.fixture
def shop(settings: ServiceSettings, database: Database, channel: AbstractChannel) -> PartitionedShop:
    return PartitionedShop(settings, database)


def items(count: int) -> list[str]:
    return [str(new_id()) for _ in range(count)]


async def with_kills(shop: PartitionedShop, *queues: int, events: int) -> None:
    """Publishes while one process after the other is killed and replaced."""
    choose = random.Random(events)  # noqa: S311 - repeatable
    async with shop.processes(*queues) as processes:
        await shop.attached(queues[0])
        publishing = asyncio.ensure_future(shop.publish(items(events // VERSIONS), VERSIONS))
        kills = 0
        while not (publishing.done() and await shop.all_processed()):
            before = await shop.count()
            victim = choose.randrange(len(processes))
            if not publishing.done() or kills < 3:
                processes[victim].kill()
                await processes[victim].wait()
                processes[victim] = await shop.start(queues[victim])
                kills += 1

            async def has_gone_on(before: int = before) -> bool:
                return await shop.count() >= min(before + events // 8, shop.published.total())

            await eventually(has_gone_on, within=120)
        await publishing
    await shop.assert_exact()
    assert kills >= 3


async def test_three_processes_on_four_queues_keep_the_order_of_each_item_though_they_are_killed(
    shop: PartitionedShop,
) -> None:
    await with_kills(shop, 4, 4, 4, events=3000)


@pytest.mark.slow
async def test_of_very_many_events_none_is_out_of_order(shop: PartitionedShop) -> None:
    """`WAYBILL_ORDER_EVENTS` is their number."""
    await with_kills(shop, 4, 4, 4, events=EVENTS)


async def test_processes_share_the_queues(shop: PartitionedShop) -> None:
    async with shop.processes(4) as processes:
        await shop.attached(4)
        await shop.publish(items(400), 1)  # so that the first process is active in all queues
        await eventually(shop.all_processed, within=60)
        processes += [await shop.start(4), await shop.start(4)]

        async def is_shared() -> bool:
            seen = await shop.count()
            await shop.publish(items(400), 1)
            await eventually(shop.all_processed, within=60)
            shares = Counter(pid for _, _, pid in (await shop.effects())[seen:])
            return max(shares.values()) < 400 * 0.75 and len(shares) > 1

        await eventually(is_shared, within=60)
    await shop.assert_exact()


async def test_the_number_of_queues_changes_while_events_flow(shop: PartitionedShop) -> None:
    """Processes with the new number stand by until the others have ended, as in a rollout."""
    subjects = items(100)
    running = await shop.start(1)
    await shop.attached(1)
    publishing = asyncio.ensure_future(shop.publish(subjects, 1))
    for queues in (4, 3, 1):
        await publishing
        publishing = asyncio.ensure_future(shop.publish(subjects, 10))
        later = [await shop.start(queues), await shop.start(queues)] if queues > 1 else [await shop.start(queues)]
        before = await shop.count()

        async def has_gone_on(before: int = before) -> bool:
            return await shop.count() > before + 100

        await eventually(has_gone_on, within=60)
        assert not await shop.are_received(queues)
        running.kill()
        await running.wait()
        await shop.attached(queues)
        if len(later) > 1:
            later[0].terminate()
            assert await later[0].wait() == 0
        running = later[-1]
    await publishing
    await eventually(shop.all_processed, within=60)
    running.terminate()
    assert await running.wait() == 0
    await shop.assert_exact()
    assert await shop.are_in_use(1)
