"""kill -9 at the four moments at which an event could be lost or duplicated, each forced rather than left to chance."""

import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from common.testing.plugin import MakeDatabase, eventually

from .backbone import MIGRATIONS, Backbone, backbone_on
from .conftest import Report
from .wire import Wire, through, wire_to

pytestmark = pytest.mark.slow


@pytest.fixture
async def backbone(make_database: MakeDatabase, amqp_url: str, tmp_path: Path) -> AsyncIterator[Backbone]:
    async with backbone_on(await make_database(MIGRATIONS), amqp_url, tmp_path / "shop.log") as backbone:
        yield backbone


@pytest.fixture
async def wire(amqp_url: str) -> AsyncIterator[Wire]:
    async with wire_to(urlsplit(amqp_url).port or 5672) as wire:
        yield wire


async def test_a_relay_killed_after_the_publish_and_before_the_confirm(
    backbone: Backbone, wire: Wire, report: Report
) -> None:
    relay = await backbone.start("relay", amqp_url=through(wire, backbone.amqp_url))
    await backbone.start("consume")
    await backbone.record()
    await backbone.until_effects(20)
    await backbone.until_pending(0)
    wire.hold("down")
    await backbone.record(10)
    # The broker has at least one of them, and the relay has no confirm.
    await backbone.until_effects(21)
    await backbone.kill(relay)
    assert await backbone.pending() == 200
    wire.release()
    await backbone.start("relay")
    count = await backbone.settle()
    report(count)
    assert count.faults == (0, 0, 0)


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
async def test_a_relay_takes_over_in_seconds_from_one_that_is(
    sent: signal.Signals, backbone: Backbone, wire: Wire, report: Report
) -> None:
    first = await backbone.start("relay", amqp_url=through(wire, backbone.amqp_url))
    await backbone.start("consume")
    await backbone.record()
    await backbone.until_effects(20, within=90)
    await backbone.until_pending(0, within=60)
    # It holds its partitions while it waits for confirms that do not arrive.
    wire.hold("down")
    await backbone.record()
    await backbone.until_effects(21, within=60)
    if sent == signal.SIGKILL:
        await backbone.kill(first)
    else:
        first.send_signal(sent)
    since = time.monotonic()
    await backbone.start("relay")
    await backbone.record()
    await backbone.until_pending(0, within=90)
    report(f"{time.monotonic() - since:.1f} s until the other relay, started after that, had published all")
    wire.release()
    if sent == signal.SIGSTOP:
        first.send_signal(signal.SIGCONT)
        await backbone.until_attached("relay", 2)
    count = await backbone.settle()
    report(count)
    assert count.faults == (0, 0, 0)


async def test_a_relay_killed_after_the_confirm_and_before_the_commit(backbone: Backbone, report: Report) -> None:
    relay = await backbone.start("relay")
    await backbone.start("consume")
    await backbone.record()
    await backbone.until_effects(20)
    other = await asyncpg.connect(backbone.database.dsn)
    try:
        async with other.transaction():
            await other.execute("LOCK TABLE event_log IN SHARE MODE")
            await backbone.record(10)

            async def held() -> bool:
                found = await other.fetchval(
                    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'shop-relay'"
                    " AND wait_event_type = 'Lock' AND query LIKE '%INSERT INTO event_log%'"
                )
                return bool(found)

            await eventually(held)
            await backbone.kill(relay)
    finally:
        await other.close()
    assert await backbone.pending() > 0
    await backbone.start("relay")
    count = await backbone.settle()
    report(count)
    assert count.faults == (0, 0, 0)


async def test_a_consumer_killed_after_the_commit_and_before_the_ack(
    backbone: Backbone, wire: Wire, report: Report
) -> None:
    await backbone.start("relay")
    consumer = await backbone.start("consume", amqp_url=through(wire, backbone.amqp_url))
    await backbone.record()
    await backbone.until_effects(20)
    wire.hold("up")
    await backbone.record(5)
    await backbone.until_effects(120)
    await backbone.kill(consumer)
    wire.release()
    await backbone.start("consume")
    count = await backbone.settle()
    report(count)
    assert count.faults == (0, 0, 0)


@pytest.mark.parametrize("role", ["relay", "consume"])
async def test_a_role_that_is_stopped_under_load_exits_cleanly_and_its_successor_continues(
    role: str, backbone: Backbone, report: Report
) -> None:
    processes = {name: await backbone.start(name) for name in ("relay", "consume")}
    async with backbone.load():
        await backbone.until_more()
        assert await backbone.stop(processes[role]) == 0
        await backbone.start(role)
        await backbone.until_more()
    count = await backbone.settle()
    report(count)
    assert count.faults == (0, 0, 0)


async def test_two_relays_and_a_consumer_killed_in_turn_under_load(backbone: Backbone, report: Report) -> None:
    roles = ["relay", "relay", "consume"]
    running = [await backbone.start(role) for role in roles]
    async with backbone.load():
        for turn in range(9):
            await backbone.until_more()
            victim = turn % len(roles)
            await backbone.kill(running[victim])
            running[victim] = await backbone.start(roles[victim])
    count = await backbone.settle()
    report(f"{count}, {turn + 1} kills")
    assert count.faults == (0, 0, 0)


async def test_a_network_that_is_repeatedly_cut_under_load(backbone: Backbone, wire: Wire, report: Report) -> None:
    for role in ("relay", "consume"):
        await backbone.start(role, amqp_url=through(wire, backbone.amqp_url))
    async with backbone.load():
        for _ in range(5):
            await backbone.until_more()
            wire.cut()
            before = backbone.recorded
            await backbone.until_pending_grows()
            assert backbone.recorded > before
            wire.restore()
    count = await backbone.settle()
    report(f"{count}, 5 cuts")
    assert count.faults == (0, 0, 0)


async def test_silently_dropped_connections_are_closed_and_opened_again(
    backbone: Backbone, wire: Wire, report: Report
) -> None:
    """There is no error: only the heartbeat and the timeout of confirms can detect it."""
    for role in ("relay", "consume"):
        await backbone.start(role, amqp_url=through(wire, backbone.amqp_url))
    async with backbone.load():
        await backbone.until_more()
        wire.forget()
        await backbone.until_more(500, within=120)
    count = await backbone.settle()
    report(count)
    assert count.faults == (0, 0, 0)
