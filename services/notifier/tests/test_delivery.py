"""From a planned delivery to a mail in a mailbox, through failures on the way."""

import asyncio
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text

from common.db.database import Database
from common.testing.plugin import eventually
from notifier.delivery import worker
from notifier.settings import Settings

from .delivering import all_sent, customer, delivering, has_cause
from .mailbox import Mailbox
from .world import World, holds


async def test_a_planned_mail_is_sent_and_recorded(world: World, settings: Settings, mailbox: Mailbox) -> None:
    user_id = await customer(world, name="Ann", email="ann@example.com")
    async with delivering(settings):
        order_id = await world.order("placed", user_id)
        await eventually(lambda: all_sent(world))
    [text] = mailbox.to("ann@example.com")
    assert str(order_id) in text
    assert "24.68 EUR" in text
    [mail] = mailbox.mails
    [notification] = await world.rows("SELECT id FROM notifications")
    assert mail["Message-ID"] == f"<{notification['id']}@waybill.invalid>"
    assert mail["From"] == "Waybill <no-reply@waybill.invalid>"
    assert mail["To"] == "Ann <ann@example.com>"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Date"] is not None


async def test_a_new_address_is_announced_to_the_previous_one(
    world: World, settings: Settings, mailbox: Mailbox
) -> None:
    user_id = await customer(world, email="old@example.com")
    change: dict[str, Any] = {"user_id": str(user_id), "name": "Ann", "email": "new@example.com", "changed": ["email"]}
    async with delivering(settings):
        await world.event("users.user.updated.v1", version=2, **change)
        await eventually(lambda: all_sent(world))
    [text] = mailbox.to("old@example.com")
    assert "another e-mail address" in text
    assert "new@example.com" not in text


async def test_a_committed_event_is_mailed_without_polling(
    world: World, settings: Settings, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_POLL", 3600)
    user_id = await customer(world)
    async with delivering(settings):
        for _ in range(5):
            await world.order("placed", user_id)
            await eventually(lambda: all_sent(world))
    assert mailbox.connections == 1


async def test_a_mail_waits_while_the_server_is_down_and_is_sent_soon_after_it_is_back(
    world: World, settings: Settings, mailbox: Mailbox
) -> None:
    user_id = await customer(world)
    await mailbox.close()
    async with delivering(settings):
        for _ in range(10):
            await world.order("placed", user_id)
        await eventually(lambda: has_cause(world, "SMTPConnect"))
        await mailbox.open()
        await eventually(lambda: all_sent(world))
    assert len(mailbox.envelopes) == 10
    assert {delivery["attempts"] for delivery in await world.deliveries()} == {1}, "an outage is not an attempt"


async def test_a_server_that_closes_idle_connections_costs_no_attempt(
    world: World, settings: Settings, mailbox: Mailbox
) -> None:
    user_id = await customer(world)
    async with delivering(settings):
        for _ in range(3):
            await world.order("placed", user_id)
            await eventually(lambda: all_sent(world))
            mailbox.drop_connections()
    assert len(mailbox.envelopes) == 3
    assert {delivery["attempts"] for delivery in await world.deliveries()} == {1}


async def test_a_temporary_refusal_is_tried_again_later_with_the_same_message_id(
    world: World, settings: Settings, mailbox: Mailbox
) -> None:
    user_id = await customer(world)
    mailbox.data_answers = ["450 4.2.0 Later, please"]
    async with delivering(settings):
        await world.order("placed", user_id)
        await eventually(lambda: has_cause(world, "450 4.2.0 Later, please"))
        await eventually(lambda: all_sent(world))
    assert mailbox.attempts == 2
    [delivery] = await world.deliveries()
    assert delivery["attempts"] == 2
    assert delivery["cause"] is None


async def test_each_delay_is_longer_than_the_one_before(world: World, settings: Settings, mailbox: Mailbox) -> None:
    user_id = await customer(world)
    mailbox.rcpt_answers = ["450 4.2.0 Greylisted"] * 4
    await world.order("placed", user_id)
    async with delivering(settings):
        for attempt in range(1, 5):
            began = await _now(world)
            await world.rows("UPDATE deliveries SET due_at = now(), cause = NULL RETURNING id")
            await eventually(partial(_postponed, world, attempt))
            [row] = await world.rows("SELECT due_at FROM deliveries")
            assert row["due_at"] - began >= timedelta(seconds=2**attempt * 0.75)
        await world.rows("UPDATE deliveries SET due_at = now() RETURNING id")
        await eventually(lambda: all_sent(world))


async def test_a_concurrent_renewal_of_the_lease_does_not_bring_the_next_attempt_forward(
    world: World, settings: Settings, database: Database, mailbox: Mailbox
) -> None:
    user_id = await customer(world)
    mailbox.data_answers = ["450 4.2.0 Greylisted"]
    mailbox.accepts.clear()
    await world.order("placed", user_id)
    await world.rows("UPDATE deliveries SET attempts = 9 RETURNING id")
    async with delivering(settings):
        await eventually(lambda: holds(mailbox.attempts == 1))
        async with database.transaction() as session:
            await session.execute(text("SELECT 1 FROM deliveries FOR UPDATE"))
            mailbox.accepts.set()
            # The record of the refusal waits for this lock, and a renewal of the lease waits for the record.
            await eventually(partial(_blocked_for, world, settings.delivery_lease))
        await eventually(partial(_postponed, world, 10))
    [row] = await world.rows("SELECT due_at - now() AS wait FROM deliveries")
    assert row["wait"] > timedelta(minutes=1)


async def _blocked_for(world: World, seconds: float) -> bool:
    return bool(
        await world.rows(
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            " AND query_start < clock_timestamp() - make_interval(secs => :seconds)",
            seconds=seconds,
        )
    )


async def _now(world: World) -> datetime:
    [row] = await world.rows("SELECT clock_timestamp() AS now")
    now: datetime = row["now"]
    return now


async def _postponed(world: World, attempts: int) -> bool:
    [row] = await world.rows("SELECT attempts, cause, due_at > now() AS later FROM deliveries")
    return row["attempts"] == attempts and row["later"] and row["cause"] is not None and "450" in row["cause"]


async def test_a_permanently_refused_recipient_is_recorded_with_the_cause_and_affects_no_other(
    world: World, settings: Settings, mailbox: Mailbox
) -> None:
    refused, there = await customer(world), await customer(world)
    mailbox.rcpt_answers = ["550 5.1.1 No such user"]
    async with delivering(settings):
        await world.order("placed", refused)
        await eventually(lambda: has_cause(world, "550 5.1.1 No such user"))
        await world.order("placed", there)
        await eventually(lambda: _settled(world, ["failed", "sent"]))
    assert len(mailbox.to(f"{there}@example.com")) == 1


async def _settled(world: World, states: list[str]) -> bool:
    return sorted(await world.states()) == states


async def test_an_outcome_is_remembered_while_the_database_is_unavailable(
    world: World, settings: Settings, mailbox: Mailbox, database: Database, postgres_server: str
) -> None:
    user_id = await customer(world)
    name = database.engine.url.database
    admin = await asyncpg.connect(postgres_server)
    try:
        mailbox.accepts.clear()
        async with delivering(settings) as health:
            await world.order("placed", user_id)
            await eventually(lambda: holds(mailbox.attempts == 1))
            await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
            await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
            mailbox.accepts.set()
            await eventually(lambda: holds(len(mailbox.envelopes) == 1))
            assert not (await health.ready())[0]
            await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
            await database.engine.dispose()
            await eventually(lambda: all_sent(world))
            await world.order("shipped", user_id)
            await eventually(lambda: all_sent(world))
    finally:
        await admin.close()
    assert len(mailbox.envelopes) == 2


async def test_two_deliverers_send_each_mail_once_though_sending_takes_longer_than_a_lease(
    world: World, settings: Settings, mailbox: Mailbox
) -> None:
    settings = settings.model_copy(update={"delivery_lease": 3.0, "unverified_mails": 30})  # a busy machine renews it
    user_id = await customer(world)
    mailbox.accepts.clear()
    async with delivering(settings), delivering(settings):
        for _ in range(30):
            await world.order("placed", user_id)
        await eventually(lambda: holds(mailbox.attempts == 8))
        asyncio.get_running_loop().call_later(2.5 * settings.delivery_lease, mailbox.accepts.set)
        await eventually(lambda: all_sent(world), within=30)
    assert len(mailbox.envelopes) == 30
    assert mailbox.attempts == 30


async def test_a_stop_finishes_mails_that_are_being_sent_and_leaves_the_others_pending(
    world: World, settings: Settings, mailbox: Mailbox
) -> None:
    user_id = await customer(world)
    mailbox.accepts.clear()
    for _ in range(10):
        await world.order("placed", user_id)
    async with delivering(settings):
        await eventually(lambda: holds(mailbox.attempts == settings.smtp_connections))
        asyncio.get_running_loop().call_later(0.3, mailbox.accepts.set)
    assert await _settled(world, ["pending"] * 6 + ["sent"] * 4)
    assert len(mailbox.envelopes) == 4


async def test_an_address_that_changed_before_the_mail_was_sent_is_used(
    world: World, settings: Settings, mailbox: Mailbox
) -> None:
    user_id = await customer(world, email="old@example.com")
    order_id = await world.order("placed", user_id)
    await world.event("users.user.updated.v1", version=2, user_id=str(user_id), name="Ann", email="new@example.com")
    async with delivering(settings):
        await eventually(lambda: all_sent(world))
    assert [str(order_id) in text for text in mailbox.to("new@example.com")] == [True]
    assert [str(order_id) in text for text in mailbox.to("old@example.com")] == [False]


async def test_an_invalid_address_fails_only_its_own_mail(world: World, settings: Settings, mailbox: Mailbox) -> None:
    strange = ["ann@example.com>\r\nRCPT TO:<eve@example.com", "", "@", "a b@example.com", "ännchen@example.com"]
    for email in strange:
        await world.order("placed", await customer(world, email=email))
    await world.order("placed", await customer(world, email="ann@example.com"))
    async with delivering(settings):
        await eventually(lambda: _settled(world, ["failed"] * len(strange) + ["sent"]))
    assert [envelope.rcpt_tos for envelope in mailbox.envelopes] == [["ann@example.com"]]
