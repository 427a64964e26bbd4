"""kill -9 at the four moments between which an event could be lost or doubled, each brought about for certain."""

import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from common.testing.plugin import MakeDatabase, eventually

from .backbone import MIGRATIONS, Backbone, backbone_on
from .conftest import Tell
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
    backbone: Backbone, wire: Wire, tell: Tell
) -> None:
    relay = await backbone.start("relay", amqp_url=through(wire, backbone.amqp_url))
    await backbone.start("consume")
    await backbone.record()
    await backbone.until_effects(20)
    await backbone.until_pending(0)
    wire.hold("down")
    await backbone.record(10)
    # The broker has at least one of them, and the relay was not told.
    await backbone.until_effects(21)
    await backbone.kill(relay)
    assert await backbone.pending() == 200
    wire.release()
    await backbone.start("relay")
    count = await backbone.settle()
    tell(count)
    assert count.faults == (0, 0, 0)


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
async def test_a_standby_takes_over_in_seconds_from_a_leader_that_is(
    blow: signal.Signals, backbone: Backbone, wire: Wire, tell: Tell
) -> None:
    leader = await backbone.start("relay", amqp_url=through(wire, backbone.amqp_url))
    await backbone.start("consume")
    await backbone.record()
    await backbone.until_effects(20, within=90)
    await backbone.until_pending(0, within=60)
    # It leads for as long as it waits for confirms that do not come.
    wire.hold("down")
    await backbone.record()
    await backbone.until_effects(21, within=60)
    if blow == signal.SIGKILL:
        await backbone.kill(leader)
    else:
        leader.send_signal(blow)
    struck = time.monotonic()
    await backbone.start("relay")
    await backbone.record()
    await backbone.until_pending(0, within=90)
    tell(f"{time.monotonic() - struck:.1f} s until the other relay, started meanwhile, had published all")
    wire.release()
    if blow == signal.SIGSTOP:
        leader.send_signal(signal.SIGCONT)
        await backbone.until_attached("relay", 2)
    count = await backbone.settle()
    tell(count)
    assert count.faults == (0, 0, 0)


async def test_a_relay_killed_after_the_confirm_and_before_the_commit(backbone: Backbone, tell: Tell) -> None:
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
    tell(count)
    assert count.faults == (0, 0, 0)


async def test_a_consumer_killed_after_the_commit_and_before_the_ack(
    backbone: Backbone, wire: Wire, tell: Tell
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
    tell(count)
    assert count.faults == (0, 0, 0)


@pytest.mark.parametrize("role", ["relay", "consume"])
async def test_a_role_that_is_told_to_stop_under_load_ends_in_order_and_its_successor_goes_on(
    role: str, backbone: Backbone, tell: Tell
) -> None:
    processes = {name: await backbone.start(name) for name in ("relay", "consume")}
    async with backbone.load():
        await backbone.until_more()
        assert await backbone.stop(processes[role]) == 0
        await backbone.start(role)
        await backbone.until_more()
    count = await backbone.settle()
    tell(count)
    assert count.faults == (0, 0, 0)


async def test_two_relays_and_a_consumer_killed_in_turn_under_load(backbone: Backbone, tell: Tell) -> None:
    roles = ["relay", "relay", "consume"]
    running = [await backbone.start(role) for role in roles]
    async with backbone.load():
        for turn in range(9):
            await backbone.until_more()
            victim = turn % len(roles)
            await backbone.kill(running[victim])
            running[victim] = await backbone.start(roles[victim])
    count = await backbone.settle()
    tell(f"{count}, {turn + 1} kills")
    assert count.faults == (0, 0, 0)


async def test_a_network_that_is_cut_again_and_again_under_load(backbone: Backbone, wire: Wire, tell: Tell) -> None:
    for role in ("relay", "consume"):
        await backbone.start(role, amqp_url=through(wire, backbone.amqp_url))
    async with backbone.load():
        for _ in range(5):
            await backbone.until_more()
            wire.cut()
            before = backbone.recorded
            await backbone.until_pending_grows()
            assert backbone.recorded > before
            wire.mend()
    count = await backbone.settle()
    tell(f"{count}, 5 cuts")
    assert count.faults == (0, 0, 0)


async def test_connections_that_a_firewall_forgot_are_given_up_and_made_anew(
    backbone: Backbone, wire: Wire, tell: Tell
) -> None:
    """Nobody is told, nothing is refused: only the heartbeat and the time-out of the confirms can notice."""
    for role in ("relay", "consume"):
        await backbone.start(role, amqp_url=through(wire, backbone.amqp_url))
    async with backbone.load():
        await backbone.until_more()
        wire.forget()
        await backbone.until_more(500, within=120)
    count = await backbone.settle()
    tell(count)
    assert count.faults == (0, 0, 0)
