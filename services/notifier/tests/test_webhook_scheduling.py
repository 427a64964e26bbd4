"""Deliverers share the work, and a receiver delays only its own deliveries."""

import asyncio
from functools import partial

import pytest

from common.db.database import new_id
from common.testing.plugin import eventually
from notifier.delivery import worker
from notifier.settings import Settings
from notifier.webhooks.claims import Shares

from .delivering import all_sent, delivering
from .mailbox import Mailbox
from .receiver import Receiver, receiving
from .webhook_waiting import allowing, make_due, settled, tried
from .world import World, holds


async def test_an_event_is_posted_without_polling_and_whatever_the_mail_preferences(
    world: World, webhook_settings: Settings, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_POLL", 3600)
    user_id = new_id()
    await world.webhook(user_id, receiver.url)
    await world.registered(user_id)
    await world.rows("UPDATE contacts SET order_updates = false RETURNING user_id")
    async with delivering(webhook_settings):
        for count in (1, 2, 3):
            await world.order("placed", user_id)
            await eventually(partial(settled, world, *["sent"] * count))
    assert (await world.states()).count("sent") == 1, "of the new webhook"


async def test_a_slow_receiver_delays_neither_others_nor_mails(
    world: World, webhook_settings: Settings, receiver: Receiver, mailbox: Mailbox
) -> None:
    """The slow receiver has more deliveries due than there are slots, and gets only its share of them."""
    slow_id, user_id = new_id(), new_id()
    await world.webhook(slow_id, receiver.url)
    receiver.answers_now.clear()
    share = Shares.of(webhook_settings.webhook_connections).per_host
    for _ in range(webhook_settings.webhook_connections):
        await world.order("placed", slow_id)
    async with receiving() as quick, delivering(allowing(webhook_settings, quick)):
        await eventually(lambda: holds(len(receiver.requests) == share))
        await world.registered(user_id)
        await world.webhook(user_id, quick.url)
        for _ in range(5):
            await world.order("placed", user_id)
        await eventually(lambda: holds(len(quick.requests) == 5), within=3)
        await eventually(lambda: holds(len(mailbox.to(f"{user_id}@example.com")) == 6), within=3)  # one of the webhook
        assert len(receiver.requests) == share
        receiver.answers_now.set()
        await eventually(lambda: settled(world, *["sent"] * (webhook_settings.webhook_connections + 5)))


async def test_two_deliverers_post_each_event_once_though_it_takes_longer_than_a_lease(
    world: World, webhook_settings: Settings, receiver: Receiver
) -> None:
    user_id = new_id()
    await world.webhook(user_id, receiver.url)
    receiver.answers_now.clear()
    webhook_settings = webhook_settings.model_copy(update={"delivery_lease": 3.0})
    for _ in range(20):
        await world.order("placed", user_id)
    async with delivering(webhook_settings), delivering(webhook_settings):
        await eventually(
            lambda: holds(len(receiver.requests) == 2 * Shares.of(webhook_settings.webhook_connections).per_host)
        )
        asyncio.get_running_loop().call_later(2.5 * webhook_settings.delivery_lease, receiver.answers_now.set)
        await eventually(lambda: settled(world, *["sent"] * 20), within=30)
    assert len({request.id for request in receiver.requests}) == len(receiver.requests) == 20


async def test_a_stop_finishes_requests_that_are_being_sent(
    world: World, webhook_settings: Settings, receiver: Receiver
) -> None:
    user_id = new_id()
    await world.webhook(user_id, receiver.url)
    receiver.answers_now.clear()
    async with delivering(webhook_settings):
        await world.order("placed", user_id)
        await eventually(lambda: holds(len(receiver.requests) == 1))
        asyncio.get_running_loop().call_later(0.3, receiver.answers_now.set)
    assert await world.post_states() == ["sent"]


async def test_mails_are_sent_while_every_receiver_is_unavailable(
    world: World, webhook_settings: Settings, receiver: Receiver, mailbox: Mailbox
) -> None:
    user_id = new_id()
    await world.registered(user_id)
    await world.webhook(user_id, receiver.url)
    await receiver.close()
    async with delivering(webhook_settings):
        await world.order("placed", user_id)
        await eventually(lambda: all_sent(world))
        await eventually(lambda: tried(world, 1))
        await receiver.open()
        await make_due(world)
        await eventually(lambda: settled(world, "sent"))
    assert len(mailbox.envelopes) == 2, "of the new webhook and of the order"
