"""From an order's event to a receiver of webhooks, whatever fails on the way."""

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from standardwebhooks.webhooks import WebhookVerificationError

from common.database import new_id
from common.testing import eventually
from notifier import webhook_queue, webhooks
from notifier.channels import webhook as channel
from notifier.settings import NotifierSettings
from notifier.webhook_queue import PER_HOST
from notifier.webhook_secrets import SecretBox, as_text

from .mailbox import Mailbox
from .receiver import OK, Receiver, answer, receiving
from .test_delivery import all_sent, delivering
from .world import KEY, World, holds, order_data


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


@pytest.fixture
def settings(settings: NotifierSettings, receiver: Receiver) -> NotifierSettings:
    """Also with a lease that a busy machine keeps."""
    return allowing(settings.model_copy(update={"delivery_lease": 6.0}), receiver)


@pytest.fixture(autouse=True)
def _next_try_when_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """By `make_due`, however slow the machine is."""
    monkeypatch.setattr(webhook_queue, "DELAYS", (3600.0,) * 8)


def allowing(settings: NotifierSettings, *receivers: Receiver) -> NotifierSettings:
    allow = {("127.0.0.1", receiver.port) for receiver in receivers}
    return settings.model_copy(update={"webhook_allow": settings.webhook_allow | allow})


async def settled(world: World, *states: str) -> bool:
    return sorted(await world.post_states()) == sorted(states)


async def tried(world: World, attempts: int) -> bool:
    """Whether the only delivery was tried so often, and waits for the next time."""
    [post] = await world.rows("SELECT attempts, cause, due_at > now() AS later FROM webhook_deliveries")
    return bool(post["attempts"] >= attempts and post["cause"] and post["later"])


async def make_due(world: World) -> None:
    await world.rows("UPDATE webhook_deliveries SET due_at = now(), cause = NULL WHERE state = 'pending' RETURNING 1")


async def test_each_event_of_ones_own_orders_is_posted_signed_and_whole(
    world: World, settings: NotifierSettings, receiver: Receiver
) -> None:
    user_id, order_id = new_id(), new_id()
    _, secret = await world.webhook(user_id, receiver.url)
    states = ["placed", "confirmed", "shipped", "delivered"]
    sent = {f"orders.order.{state}.v1": order_data(state, user_id, order_id, is_gift=True) for state in states}
    async with delivering(settings):
        ids = {await world.event(event_type, **data): event_type for event_type, data in sent.items()}
        await world.order("placed", new_id())
        await eventually(lambda: settled(world, *["sent"] * 4))
    assert len(receiver.requests) == 4
    for request in receiver.requests:
        event = request.verified(secret)
        assert ids[UUID(request.id)] == event["type"]
        assert event["data"] == sent[event["type"]], "with what this version does not know"
        assert event["timestamp"].endswith("Z")
        assert request.target == "/hook?source=waybill"
        assert request.headers["content-type"] == "application/json"
        with pytest.raises(WebhookVerificationError):
            request.verified(as_text(bytes(32)))


async def test_only_the_types_asked_for_are_posted_and_each_webhook_gets_its_own(
    world: World, settings: NotifierSettings, receiver: Receiver
) -> None:
    user_id = new_id()
    _, first = await world.webhook(user_id, receiver.url, event_types=["orders.order.cancelled.v1"])
    _, second = await world.webhook(user_id, receiver.url + "&second", event_types=["orders.order.cancelled.v1"])
    async with delivering(settings):
        await world.order("placed", user_id)
        await world.order("cancelled", user_id)
        await eventually(lambda: settled(world, "sent", "sent"))
    for request in receiver.requests:
        event = request.verified(second if "second" in request.target else first)
        assert event["type"] == "orders.order.cancelled.v1"
        assert event["data"]["cancelled_by"] == "staff"


async def test_it_is_posted_within_a_second_and_whether_mails_are_wanted_or_not(
    world: World, settings: NotifierSettings, receiver: Receiver
) -> None:
    user_id = new_id()
    await world.webhook(user_id, receiver.url)
    await world.registered(user_id)
    await world.rows("UPDATE contacts SET order_updates = false RETURNING user_id")
    async with delivering(settings):
        for count in (1, 2, 3):
            await world.order("placed", user_id)
            await eventually(partial(settled, world, *["sent"] * count), within=1.0)
    assert await world.deliveries() == []


async def test_a_second_event_of_the_same_state_is_not_posted(
    world: World, settings: NotifierSettings, receiver: Receiver
) -> None:
    user_id = new_id()
    await world.webhook(user_id, receiver.url)
    order_id = await world.order("placed", user_id)
    await world.order("placed", user_id, order_id)
    assert await world.post_states() == ["pending"]


async def test_a_failed_try_is_repeated_with_the_same_id_and_body(
    world: World, settings: NotifierSettings, receiver: Receiver
) -> None:
    user_id = new_id()
    _, secret = await world.webhook(user_id, receiver.url)
    receiver.answers = [answer(500), answer(429), OK]
    async with delivering(settings):
        await world.order("placed", user_id)
        for attempts, cause in ((1, "answered 500"), (2, "answered 429")):
            await eventually(partial(tried, world, attempts))
            assert [post["cause"] for post in await world.posts()] == [cause]
            await make_due(world)
        await eventually(lambda: settled(world, "sent"))
    assert len({request.id for request in receiver.requests}) == 1
    assert len({request.body for request in receiver.requests}) == 1
    assert len(receiver.requests) == 3
    for request in receiver.requests:
        request.verified(secret)


async def test_what_is_never_taken_is_given_up_in_the_end(
    world: World, settings: NotifierSettings, receiver: Receiver
) -> None:
    user_id = new_id()
    await world.webhook(user_id, receiver.url)
    receiver.answers = [answer(500)]
    await world.order("placed", user_id)
    await world.rows("UPDATE webhook_deliveries SET attempts = 8 RETURNING 1")
    async with delivering(settings):
        await eventually(lambda: settled(world, "failed"))
    assert [post["cause"] for post in await world.posts()] == ["given up after 9 attempts: answered 500"]


async def test_a_receiver_that_says_gone_is_not_asked_again(
    world: World, settings: NotifierSettings, receiver: Receiver
) -> None:
    user_id = new_id()
    await world.webhook(user_id, receiver.url)
    receiver.answers = [answer(410)]
    async with delivering(settings):
        await world.order("placed", user_id)
        await eventually(lambda: settled(world, "failed"))
    assert len(receiver.requests) == 1


async def test_a_redirect_is_not_followed(world: World, settings: NotifierSettings, receiver: Receiver) -> None:
    user_id = new_id()
    await world.webhook(user_id, receiver.url)
    async with receiving() as elsewhere, delivering(allowing(settings, elsewhere)):
        receiver.answers = [answer(307, f"Location: {elsewhere.url}")]
        await world.order("placed", user_id)
        await eventually(lambda: tried(world, 1))
        assert elsewhere.connections == 0
    assert [post["cause"] for post in await world.posts()] == ["answered 307, redirects are not followed"]


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        (b"", "RemoteProtocolError"),
        (b"220 mail.test ESMTP\r\n", "RemoteProtocolError"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000, "RemoteProtocolError"),
    ],
)
async def test_what_is_no_answer_in_http_is_no_success(
    world: World, settings: NotifierSettings, receiver: Receiver, said: bytes, cause: str
) -> None:
    user_id = new_id()
    await world.webhook(user_id, receiver.url)
    receiver.answers = [said]
    async with delivering(settings):
        await world.order("placed", user_id)
        await eventually(lambda: tried(world, 1))
    assert cause in (await world.posts())[0]["cause"]


async def test_an_endless_answer_is_cut_off_and_counts_by_its_status(
    world: World, settings: NotifierSettings, receiver: Receiver
) -> None:
    user_id = new_id()
    await world.webhook(user_id, receiver.url)
    receiver.answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n" + bytes(50_000_000)]
    async with delivering(settings):
        await world.order("placed", user_id)
        await eventually(lambda: settled(world, "sent"))


async def test_a_receiver_that_does_not_answer_in_time_is_tried_again(
    world: World, settings: NotifierSettings, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "TIMEOUT", 0.5)
    user_id = new_id()
    await world.webhook(user_id, receiver.url)
    receiver.answers_now.clear()
    async with delivering(settings):
        await world.order("placed", user_id)
        await eventually(lambda: tried(world, 1))
    assert "no answer within" in (await world.posts())[0]["cause"]


async def test_a_slow_receiver_holds_up_neither_others_nor_mails(
    world: World, settings: NotifierSettings, receiver: Receiver, mailbox: Mailbox
) -> None:
    """One with more due than there are slots; it gets its share of them and no more."""
    slow_id, user_id = new_id(), new_id()
    await world.webhook(slow_id, receiver.url)
    receiver.answers_now.clear()
    for _ in range(3 * PER_HOST):
        await world.order("placed", slow_id)
    few = settings.model_copy(update={"webhook_connections": PER_HOST + 1})
    async with receiving() as quick, delivering(allowing(few, quick)):
        await eventually(lambda: holds(len(receiver.requests) == PER_HOST))
        await world.registered(user_id)
        await world.webhook(user_id, quick.url)
        for _ in range(5):
            await world.order("placed", user_id)
        await eventually(lambda: holds(len(quick.requests) == 5), within=3)
        await eventually(lambda: holds(len(mailbox.to(f"{user_id}@example.com")) == 5), within=3)
        assert len(receiver.requests) == PER_HOST
        receiver.answers_now.set()
        await eventually(lambda: settled(world, *["sent"] * (3 * PER_HOST + 5)))


async def test_two_deliverers_post_each_event_once_though_it_takes_longer_than_a_lease(
    world: World, settings: NotifierSettings, receiver: Receiver
) -> None:
    user_id = new_id()
    await world.webhook(user_id, receiver.url)
    receiver.answers_now.clear()
    settings = settings.model_copy(update={"delivery_lease": 1.0})
    async with delivering(settings), delivering(settings):
        for _ in range(20):
            await world.order("placed", user_id)
        await eventually(lambda: holds(len(receiver.requests) == 2 * PER_HOST))
        asyncio.get_running_loop().call_later(2.5 * settings.delivery_lease, receiver.answers_now.set)
        await eventually(lambda: settled(world, *["sent"] * 20))
    assert len({request.id for request in receiver.requests}) == len(receiver.requests) == 20


async def test_while_secrets_change_both_are_signed_with_and_then_the_new_one_alone(
    world: World, settings: NotifierSettings, receiver: Receiver
) -> None:
    user_id = new_id()
    webhook_id, old = await world.webhook(user_id, receiver.url)
    async with world.database.transaction() as session:
        _, secret = await webhooks.replace_secret(session, SecretBox(KEY), webhook_id, user_id=user_id)
    new = as_text(secret)
    async with delivering(settings):
        await world.order("placed", user_id)
        await eventually(lambda: settled(world, "sent"))
        await world.rows("UPDATE webhooks SET previous_until = now() RETURNING id")
        await world.order("placed", user_id)
        await eventually(lambda: settled(world, "sent", "sent"))
    during, after = receiver.requests
    assert during.verified(old) == during.verified(new) == during.event
    assert after.verified(new) == after.event
    with pytest.raises(WebhookVerificationError):
        after.verified(old)


async def test_the_signature_is_of_the_try_not_of_the_event(
    world: World, settings: NotifierSettings, receiver: Receiver
) -> None:
    """Receivers refuse what was signed long ago."""
    user_id = new_id()
    _, secret = await world.webhook(user_id, receiver.url)
    await world.order("placed", user_id)
    await world.rows("UPDATE notifications SET created_at = now() - interval '1 day' RETURNING id")
    async with delivering(settings):
        await eventually(lambda: settled(world, "sent"))
    [request] = receiver.requests
    assert abs(int(request.headers["webhook-timestamp"]) - time.time()) < 60
    request.verified(secret)


async def test_a_name_that_does_not_resolve_is_tried_again(world: World, settings: NotifierSettings) -> None:
    user_id = new_id()
    await world.webhook(user_id, "https://nobody.invalid/")
    async with delivering(settings):
        await world.order("placed", user_id)
        await eventually(lambda: tried(world, 1))
    assert "does not resolve" in (await world.posts())[0]["cause"]


@pytest.mark.parametrize("url", ["https://localhost:{port}/", "https://127.0.0.1:{port}/", "https://[::1]:{port}/"])
async def test_no_connection_is_made_to_an_address_that_is_not_public(
    world: World, settings: NotifierSettings, receiver: Receiver, url: str
) -> None:
    """However it came into the table: the judgement at registration is not relied upon."""
    user_id = new_id()
    await world.webhook(user_id, url.format(port=receiver.port))
    async with delivering(settings.model_copy(update={"webhook_allow": frozenset()})):
        await world.order("placed", user_id)
        await eventually(lambda: tried(world, 1))
    assert receiver.connections == 0
    assert "not public" in (await world.posts())[0]["cause"]


async def test_http_is_refused_once_its_host_is_no_longer_allowed(
    world: World, settings: NotifierSettings, receiver: Receiver
) -> None:
    user_id = new_id()
    await world.webhook(user_id, receiver.url)
    async with delivering(settings.model_copy(update={"webhook_allow": frozenset()})):
        await world.order("placed", user_id)
        await eventually(lambda: tried(world, 1))
    assert receiver.connections == 0


async def test_a_deleted_webhook_gets_nothing_more(
    world: World, settings: NotifierSettings, receiver: Receiver
) -> None:
    user_id = new_id()
    webhook_id, _ = await world.webhook(user_id, receiver.url)
    await world.order("placed", user_id)
    await world.rows("DELETE FROM webhooks WHERE id = :id RETURNING id", id=webhook_id)
    await world.webhook(user_id, receiver.url + "&second")
    async with delivering(settings):
        await world.order("placed", user_id)
        await eventually(lambda: settled(world, "sent"))
    assert ["second" in request.target for request in receiver.requests] == [True]


async def test_a_webhook_deleted_while_its_delivery_is_planned_costs_the_event_nothing(world: World) -> None:
    user_id = new_id()
    await world.webhook(user_id)
    async with world.database.transaction() as session:
        connection = await session.connection()
        await connection.exec_driver_sql("DELETE FROM webhooks")
        planning = asyncio.create_task(world.order("placed", user_id))
        await eventually(lambda: _is_blocked(world))
    await planning
    assert await world.kinds(user_id) == ["order_placed"]
    assert await world.posts() == []


async def _is_blocked(world: World) -> bool:
    return bool(await world.rows("SELECT 1 FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid()"))


async def test_an_erased_persons_webhooks_are_gone(world: World) -> None:
    user_id, other = new_id(), new_id()
    for person in (user_id, other):
        await world.webhook(person)
        await world.order("placed", person)
    await world.event("users.user.erased.v1", version=2, user_id=str(user_id))
    assert [row["user_id"] for row in await world.rows("SELECT user_id FROM webhooks")] == [other]
    assert await world.post_states() == ["pending"]
    await world.order("shipped", user_id)
    assert await world.post_states() == ["pending"]


async def test_no_secret_is_at_rest_in_clear(world: World) -> None:
    user_id = new_id()
    webhook_id, secret = await world.webhook(user_id)
    [row] = await world.rows("SELECT * FROM webhooks")
    unsealed = SecretBox(KEY).unseal(row["secret"], webhook_id)
    assert as_text(unsealed) == secret
    assert unsealed not in row["secret"]
    for box, owner in ((SecretBox(KEY), new_id()), (SecretBox(bytes(32)), webhook_id)):
        with pytest.raises(Exception, match=r"^$"):  # InvalidTag says nothing more
            box.unseal(row["secret"], owner)


async def test_a_stop_finishes_what_is_being_posted(
    world: World, settings: NotifierSettings, receiver: Receiver
) -> None:
    user_id = new_id()
    await world.webhook(user_id, receiver.url)
    receiver.answers_now.clear()
    async with delivering(settings):
        await world.order("placed", user_id)
        await eventually(lambda: holds(len(receiver.requests) == 1))
        asyncio.get_running_loop().call_later(0.3, receiver.answers_now.set)
    assert await world.post_states() == ["sent"]


async def test_mails_go_out_while_every_receiver_is_away(
    world: World, settings: NotifierSettings, receiver: Receiver, mailbox: Mailbox
) -> None:
    user_id = new_id()
    await world.registered(user_id)
    await world.webhook(user_id, receiver.url)
    await receiver.close()
    async with delivering(settings):
        await world.order("placed", user_id)
        await eventually(lambda: all_sent(world))
        await eventually(lambda: tried(world, 1))
        await receiver.open()
        await make_due(world)
        await eventually(lambda: settled(world, "sent"))
    assert len(mailbox.envelopes) == 1


def test_the_settings_take_hosts_and_ports(settings: NotifierSettings) -> None:
    given: dict[str, Any] = settings.model_dump() | {"webhook_allow": "LocalHost:9000, [::1]:9001,"}
    assert NotifierSettings(**given).webhook_allow == {("localhost", 9000), ("::1", 9001)}
    with pytest.raises(ValueError, match="host:port"):
        NotifierSettings(**given | {"webhook_allow": "localhost"})
    with pytest.raises(ValueError, match="32 bytes"):
        NotifierSettings(**given | {"webhook_key": "c2hvcnQ="})
