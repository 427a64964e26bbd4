"""The real processes, `python -m notifier ROLE`, killed at the worst moments."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiormq import Channel
from sqlalchemy import text

from common.db.database import Database, new_id
from common.messaging import broker, topology
from common.testing.plugin import eventually
from notifier.settings import Settings

from .mailbox import Mailbox
from .receiver import receiving
from .test_consumers import counted, ordered, publish, registered
from .world import World, holds

Start = Callable[..., Awaitable[asyncio.subprocess.Process]]


@pytest.fixture
async def start(settings: Settings, amqp_url: str, tmp_path: Path) -> AsyncIterator[Start]:
    """Starts a role. Processes that still run at the end are killed."""
    secrets = {
        "waybill_database_url": settings.database_url.get_secret_value(),
        "waybill_amqp_url": amqp_url,
        "waybill_client_secret": "a secret",
        "waybill_webhook_key": settings.webhook_key.get_secret_value(),
    }
    for name, value in secrets.items():
        (tmp_path / name).write_text(value)
    environment = os.environ | {
        "WAYBILL_SECRETS_DIR": str(tmp_path),
        "WAYBILL_PUBLIC_URL": settings.public_url,
        "WAYBILL_AUTH_URL": settings.auth_url,
        "WAYBILL_USERS_URL": settings.users_url,
        "WAYBILL_SMTP_HOST": settings.smtp_host,
        "WAYBILL_SMTP_PORT": str(settings.smtp_port),
        "WAYBILL_DELIVERY_LEASE": "2",
    }
    async with contextlib.AsyncExitStack() as stack:

        async def started(role: str, **more: str) -> asyncio.subprocess.Process:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "notifier", role, "--port", "0", env=environment | more
            )
            stack.push_async_callback(ended, process)
            return process

        yield started


async def ended(process: asyncio.subprocess.Process) -> None:
    """Kills the process, if it still runs, as `kill -9` does."""
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()


@pytest.fixture
async def channel(amqp_url: str) -> AsyncIterator[Channel]:
    async with broker.connect(amqp_url, "test") as connection:
        declaring = await connection.channel()
        for producer in ("auth", "users", "orders"):
            await topology.declare_producer(declaring, producer)
        yield await broker.raw_channel(connection, confirms=True)


async def unsettled(world: World, count: int) -> bool:
    return (await world.states()).count("pending") == count


@pytest.mark.slow
async def test_the_notification_after_the_response_survives_kill_9_of_consumer_and_deliverer(
    world: World, mailbox: Mailbox, start: Start, channel: Channel
) -> None:
    people = [(new_id(), new_id()) for _ in range(20)]
    mailbox.accepts.clear()
    consumer, deliverer = await start("consume"), await start("deliver")
    await eventually(lambda: bound(channel), within=30)
    for user_id, order_id in people[:10]:
        await publish(channel, registered(user_id))
        await publish(channel, ordered("placed", user_id, order_id))
    await eventually(lambda: holds(mailbox.attempts >= 1), within=30)
    await asyncio.gather(ended(consumer), ended(deliverer))
    mailbox.drop_connections()
    mailbox.accepts.set()
    for user_id, order_id in people[10:]:
        await publish(channel, registered(user_id))
        await publish(channel, ordered("placed", user_id, order_id))
    await start("consume")
    await start("deliver")
    await eventually(lambda: counted(world, "inbox", 40), within=30)
    await eventually(lambda: unsettled(world, 0), within=30)
    by_address = mailbox.texts()
    for user_id, order_id in people:
        [mail] = by_address[f"{user_id}@example.com"]
        assert str(order_id) in mail


async def bound(channel: Channel) -> bool:
    """Whether the consumer has declared its queue: events published before are not routed to it."""
    async with contextlib.AsyncExitStack() as stack:
        probe = await channel.connection.channel()
        stack.push_async_callback(probe.close)
        try:
            declared = await probe.queue_declare("notifier.inbound", passive=True)
        except Exception:  # noqa: BLE001 - not there yet
            return False
    return bool(declared.consumer_count)


async def test_a_mail_whose_acceptance_was_not_recorded_is_sent_again_with_the_same_message_id(
    world: World, database: Database, mailbox: Mailbox, start: Start
) -> None:
    """At-least-once delivery: the window between the server's 250 and our commit can't be closed."""
    user_id = new_id()
    await world.registered(user_id)
    await world.order("placed", user_id)
    mailbox.accepts.clear()
    deliverer = await start("deliver")
    await eventually(lambda: holds(mailbox.attempts >= 1), within=30)
    async with database.transaction() as session:
        await session.execute(text("SELECT 1 FROM deliveries FOR UPDATE"))
        mailbox.accepts.set()
        await eventually(lambda: holds(len(mailbox.envelopes) == 1))
        await ended(deliverer)
    await start("deliver")
    await eventually(lambda: unsettled(world, 0), within=30)
    first, second = mailbox.mails
    assert first["Message-ID"] == second["Message-ID"]
    assert first.as_bytes() == second.as_bytes()


async def test_a_webhook_whose_response_was_not_recorded_is_posted_again_with_the_same_id(
    world: World, database: Database, start: Start
) -> None:
    user_id = new_id()
    async with receiving() as receiver:
        _, secret = await world.webhook(user_id, receiver.url)
        await world.order("placed", user_id)
        receiver.answers_now.clear()
        deliverer = await start("deliver", WAYBILL_WEBHOOK_ALLOW=receiver.host)
        await eventually(lambda: holds(len(receiver.requests) == 1), within=30)
        async with database.transaction() as session:
            await session.execute(text("SELECT 1 FROM webhook_deliveries FOR UPDATE"))
            receiver.answers_now.set()
            await eventually(lambda: holds(receiver.answered == 1))
            await ended(deliverer)
        await start("deliver", WAYBILL_WEBHOOK_ALLOW=receiver.host)
        await eventually(lambda: posted(world), within=30)
    first, second = receiver.requests
    assert (first.id, first.body) == (second.id, second.body)
    assert first.verified(secret) == second.verified(secret)


async def posted(world: World) -> bool:
    return await world.post_states() == ["sent"]


async def test_sigterm_ends_a_deliverer_after_it_has_sent_its_current_mail(
    world: World, mailbox: Mailbox, start: Start
) -> None:
    user_id = new_id()
    await world.registered(user_id)
    await world.order("placed", user_id)
    mailbox.accepts.clear()
    deliverer = await start("deliver")
    await eventually(lambda: holds(mailbox.attempts >= 1), within=30)
    deliverer.terminate()
    asyncio.get_running_loop().call_later(0.5, mailbox.accepts.set)
    assert await asyncio.wait_for(deliverer.wait(), 30) == 0
    assert await world.states() == ["sent"]
