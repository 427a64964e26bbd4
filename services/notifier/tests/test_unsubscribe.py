"""Turning off mails by the link in them (RFC 8058), and who receives how many."""

import asyncio
import base64
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import pytest

from common.testing.plugin import eventually
from notifier.mail.unsubscribe_links import UnsubscribeLinks
from notifier.settings import Settings

from .delivering import all_sent, customer, delivering
from .mailbox import Mailbox, part_of
from .world import KEY, World, holds

ONE_CLICK = {"List-Unsubscribe": "One-Click"}


@pytest.fixture
def links(settings: Settings) -> UnsubscribeLinks:
    return UnsubscribeLinks(settings.public_url, KEY)


async def wishes(world: World, user_id: UUID) -> tuple[bool, bool]:
    [row] = await world.rows("SELECT order_updates, welcome FROM contacts WHERE user_id = :id", id=user_id)
    return row["order_updates"], row["welcome"]


async def test_one_click_in_a_received_mail_turns_off_its_kind_and_the_waiting_mails_of_it(
    world: World, settings: Settings, mailbox: Mailbox, api: httpx.AsyncClient
) -> None:
    user_id = await customer(world, send_welcome=True)
    await world.order("placed", user_id)
    async with delivering(settings):
        await eventually(lambda: all_sent(world))
    [order] = [mail for mail in mailbox.mails if "order" in mail["Subject"]]
    assert order["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    path = urlsplit(order["List-Unsubscribe"].strip("<>")).path
    assert path in part_of(order, "plain")
    assert "?token=" not in part_of(order, "plain") + part_of(order, "html")
    await world.order("placed", user_id)
    for _ in range(2):
        form = await api.get(path)
        assert (form.status_code, form.headers["Cache-Control"]) == (200, "no-store")
        assert "frame-ancestors 'none'" in form.headers["Content-Security-Policy"]
        assert '<form method="post">' in form.text
    assert (await api.head(path)).status_code == 200
    assert await wishes(world, user_id) == (True, True)
    for body in (ONE_CLICK, None):
        answer = await api.post(path, data=body)
        assert answer.status_code == 200
        assert "<form" not in answer.text
    assert await wishes(world, user_id) == (False, True)
    await world.event("users.user.password_changed.v1", version=2, user_id=str(user_id))
    async with delivering(settings):
        await eventually(lambda: _is(world, ["cancelled", "sent", "sent", "sent"]))
    [cancelled] = await world.rows("SELECT cause FROM deliveries WHERE state = 'cancelled'")
    assert cancelled["cause"] == "the person turned these mails off"
    # The wish counts when a mail is sent.
    await world.order("placed", user_id)
    await world.execute("UPDATE contacts SET order_updates = true")
    async with delivering(settings):
        await eventually(lambda: _is(world, ["cancelled"] + ["sent"] * 4))


async def _is(world: World, states: list[str]) -> bool:
    return sorted(await world.states()) == states


async def test_a_made_up_link_changes_nothing(
    world: World, api: httpx.AsyncClient, links: UnsubscribeLinks, settings: Settings
) -> None:
    user_id, other = await customer(world), await customer(world)
    path = urlsplit(links.url(user_id, "order_updates")).path
    raw = base64.urlsafe_b64decode(path.rpartition("/")[2])
    forged = [
        raw[:1] + other.bytes + raw[17:],
        bytes([1]) + raw[1:],
        bytes([7]) + raw[1:],
        raw[:-1],
        raw + b"x",
        b"",
        raw[:-1] + bytes([raw[-1] ^ 1]),
    ]
    made_up = [base64.urlsafe_b64encode(each).decode() or "-" for each in forged]
    another_key = UnsubscribeLinks(settings.public_url, bytes(32)).url(user_id, "order_updates")
    for link in (*made_up, another_key.rpartition("/")[2], "x" * 5000, "%00", "ä"):
        for method in ("GET", "POST"):
            answer = await api.request(method, f"/unsubscribe/{link}")
            assert answer.status_code in {404, 422}, link
    assert await wishes(world, user_id) == await wishes(world, other) == (True, True)


async def test_the_link_of_an_erased_person_does_nothing(
    world: World, api: httpx.AsyncClient, links: UnsubscribeLinks
) -> None:
    user_id = await customer(world)
    await world.event("users.user.erased.v1", version=2, user_id=str(user_id))
    assert (await api.post(urlsplit(links.url(user_id, "welcome")).path, data=ONE_CLICK)).status_code == 200
    assert await wishes(world, user_id) == (True, True)


async def orders(world: World, user_id: UUID, count: int) -> None:
    for _ in range(count):
        await world.order("cancelled", user_id, await world.order("placed", user_id))


async def count(world: World, state: str) -> int:
    return (await world.states()).count(state)


async def test_an_unverified_address_gets_a_few_mails_and_the_others_once_it_is_verified(
    world: World, settings: Settings, mailbox: Mailbox
) -> None:
    user_id, verified = await customer(world), await customer(world)
    await world.event("users.user.email_verified.v1", version=2, user_id=str(verified))
    await orders(world, user_id, 10)
    await orders(world, verified, 10)
    async with delivering(settings), delivering(settings):
        await eventually(lambda: holds(len(mailbox.envelopes) == 30))
        await eventually(lambda: _is(world, ["held"] * 10 + ["sent"] * 30))
        assert len(mailbox.to(f"{user_id}@example.com")) == 10
        # News of security have a limit of their own.
        for version in range(2, 14):
            await world.event("users.user.password_changed.v1", version=version, user_id=str(user_id))
        await eventually(lambda: _is(world, ["held"] * 12 + ["sent"] * 40))
        assert len(await world.kinds(user_id)) == 32
        await world.execute(
            "UPDATE deliveries SET created_at = now() - interval '8 days'"
            " WHERE id = (SELECT id FROM deliveries WHERE state = 'held' ORDER BY id LIMIT 1)"
        )
        await world.event("users.user.email_verified.v1", version=20, user_id=str(user_id))
        await eventually(lambda: _is(world, ["cancelled"] + ["sent"] * 51))
    assert len({mail["Message-ID"] for mail in mailbox.mails}) == 51


async def test_many_mails_that_are_held_do_not_delay_those_of_others(
    world: World, settings: Settings, mailbox: Mailbox
) -> None:
    user_id, other = await customer(world), await customer(world)
    await orders(world, user_id, 60)
    await world.order("placed", other)
    async with delivering(settings):
        await eventually(lambda: holds(len(mailbox.to(f"{other}@example.com")) == 1), within=8)
        assert await count(world, "held") > 50


async def test_the_limit_is_of_the_address_and_a_day_whatever_accounts_use_it(
    world: World, settings: Settings, mailbox: Mailbox
) -> None:
    email = "stranger@example.com"
    async with delivering(settings):
        for _ in range(3):
            user_id = await customer(world, email=email)
            await orders(world, user_id, 4)
            await eventually(lambda: holds_all_settled(world))
            await world.event("users.user.erased.v1", version=2, user_id=str(user_id))
        assert len(mailbox.to(email)) == 10
        assert email not in repr(await world.rows("SELECT * FROM unverified_mails"))
        await world.execute("UPDATE unverified_mails SET day = day - interval '1 day'")
        await orders(world, await customer(world, email=email), 1)
        await eventually(lambda: all_sent(world))
    assert len(mailbox.to(email)) == 12


async def holds_all_settled(world: World) -> bool:
    return "pending" not in await world.states()


async def test_attempts_while_the_server_refuses_us_do_not_count_for_the_limit(
    world: World, settings: Settings, mailbox: Mailbox
) -> None:
    user_id = await customer(world)
    await orders(world, user_id, 5)
    mailbox.rcpt_answers = ["554 5.7.1 Relay access denied"] * 1000
    async with delivering(settings):
        for _ in range(3):
            before = mailbox.attempts
            await world.execute("UPDATE deliveries SET due_at = now()")
            await eventually(lambda: holds(mailbox.attempts > before))  # noqa: B023 - awaited within the round
        mailbox.rcpt_answers = []
        await world.execute("UPDATE deliveries SET due_at = now()")
        await eventually(lambda: all_sent(world), within=30)
    assert len(mailbox.to(f"{user_id}@example.com")) == 10


async def test_a_verification_and_a_claim_at_once_leave_nothing_held(
    world: World, settings: Settings, mailbox: Mailbox
) -> None:
    people = [await customer(world) for _ in range(8)]
    for user_id in people:
        await orders(world, user_id, 8)

    async def verified(user_id: Any) -> None:
        await world.event("users.user.email_verified.v1", version=2, user_id=str(user_id))

    async with delivering(settings):
        await eventually(lambda: holds(len(mailbox.envelopes) > 20))
        await asyncio.gather(*map(verified, people))
        await eventually(lambda: all_sent(world), within=30)
    assert len(mailbox.envelopes) == 128


async def test_news_of_one_kind_silence_none_of_another_and_security_is_never_stale(
    world: World, settings: Settings, mailbox: Mailbox
) -> None:
    """Ten webhooks, which anybody with a token can add, must not keep a new password from its owner."""
    user_id = await customer(world)
    for _ in range(2):
        await world.webhook(user_id)
    async with delivering(settings.model_copy(update={"unverified_mails": 1})):
        await eventually(lambda: _is(world, ["held", "sent"]))
        await world.event("users.user.password_changed.v1", version=2, user_id=str(user_id))
        await eventually(lambda: _is(world, ["held", "sent", "sent"]))
        await world.execute("UPDATE deliveries SET created_at = now() - interval '8 days' WHERE state = 'held'")
        await world.event("users.user.email_verified.v1", version=3, user_id=str(user_id))
        await eventually(lambda: _is(world, ["sent"] * 3))
