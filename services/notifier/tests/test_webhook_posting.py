"""From an order's event to a receiver, whatever its response."""

from functools import partial
from uuid import UUID

import pytest
from standardwebhooks.webhooks import WebhookVerificationError

from common.db.database import new_id
from common.testing.plugin import eventually
from notifier.settings import Settings
from notifier.webhooks import channel
from notifier.webhooks.secrets import encode_secret

from .delivering import delivering
from .receiver import OK, Receiver, answer, receiving
from .webhook_waiting import allowing, make_due, settled, tried
from .world import World, order_data


async def test_each_event_of_a_persons_orders_is_posted_signed_and_complete(
    world: World, webhook_settings: Settings, receiver: Receiver
) -> None:
    user_id, order_id = new_id(), new_id()
    _, secret = await world.webhook(user_id, receiver.url)
    states = ["placed", "confirmed", "shipped", "delivered"]
    sent = {f"orders.order.{state}.v1": order_data(state, user_id, order_id, is_gift=True) for state in states}
    async with delivering(webhook_settings):
        ids = {await world.event(event_type, **data): event_type for event_type, data in sent.items()}
        await world.order("placed", new_id())
        await eventually(lambda: settled(world, *["sent"] * 4))
    assert len(receiver.requests) == 4
    for request in receiver.requests:
        event = request.verified(secret)
        assert ids[UUID(request.id)] == event["type"]
        assert event["data"] == sent[event["type"]], "including fields that this version does not know"
        assert event["timestamp"].endswith("Z")
        assert request.target == "/hook?source=waybill"
        assert request.headers["content-type"] == "application/json"
        with pytest.raises(WebhookVerificationError):
            request.verified(encode_secret(bytes(32)))


async def test_a_failed_attempt_is_repeated_with_the_same_id_and_body(
    world: World, webhook_settings: Settings, receiver: Receiver
) -> None:
    user_id = new_id()
    _, secret = await world.webhook(user_id, receiver.url)
    receiver.answers = [answer(500), answer(429), OK]
    async with delivering(webhook_settings):
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


async def test_a_delivery_that_is_never_accepted_fails_in_the_end(
    world: World, webhook_settings: Settings, receiver: Receiver
) -> None:
    user_id = new_id()
    await world.webhook(user_id, receiver.url)
    receiver.answers = [answer(500)]
    await world.order("placed", user_id)
    await world.rows("UPDATE webhook_deliveries SET attempts = 8 RETURNING 1")
    async with delivering(webhook_settings):
        await eventually(lambda: settled(world, "failed"))
    assert [post["cause"] for post in await world.posts()] == ["given up after 9 attempts: answered 500"]


async def test_a_receiver_that_responds_410_is_not_tried_again(
    world: World, webhook_settings: Settings, receiver: Receiver
) -> None:
    user_id = new_id()
    await world.webhook(user_id, receiver.url)
    receiver.answers = [answer(410)]
    async with delivering(webhook_settings):
        await world.order("placed", user_id)
        await eventually(lambda: settled(world, "failed"))
    assert len(receiver.requests) == 1


async def test_a_redirect_is_not_followed(world: World, webhook_settings: Settings, receiver: Receiver) -> None:
    user_id = new_id()
    await world.webhook(user_id, receiver.url)
    async with receiving() as elsewhere, delivering(allowing(webhook_settings, elsewhere)):
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
async def test_an_invalid_http_response_is_no_success(
    world: World, webhook_settings: Settings, receiver: Receiver, said: bytes, cause: str
) -> None:
    user_id = new_id()
    await world.webhook(user_id, receiver.url)
    receiver.answers = [said]
    async with delivering(webhook_settings):
        await world.order("placed", user_id)
        await eventually(lambda: tried(world, 1))
    assert cause in (await world.posts())[0]["cause"]


async def test_an_endless_response_is_cut_off_and_its_status_counts(
    world: World, webhook_settings: Settings, receiver: Receiver
) -> None:
    user_id = new_id()
    await world.webhook(user_id, receiver.url)
    receiver.answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n" + bytes(50_000_000)]
    async with delivering(webhook_settings):
        await world.order("placed", user_id)
        await eventually(lambda: settled(world, "sent"))


async def test_a_receiver_that_does_not_answer_in_time_is_tried_again(
    world: World, webhook_settings: Settings, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "TIMEOUT", 0.5)
    user_id = new_id()
    await world.webhook(user_id, receiver.url)
    receiver.answers_now.clear()
    async with delivering(webhook_settings):
        await world.order("placed", user_id)
        await eventually(lambda: tried(world, 1))
    assert "no answer within" in (await world.posts())[0]["cause"]


async def test_a_name_that_does_not_resolve_is_tried_again(world: World, webhook_settings: Settings) -> None:
    user_id = new_id()
    await world.webhook(user_id, "https://nobody.invalid/")
    async with delivering(webhook_settings):
        await world.order("placed", user_id)
        await eventually(lambda: tried(world, 1))
    assert "does not resolve" in (await world.posts())[0]["cause"]


@pytest.mark.parametrize("url", ["https://localhost:{port}/", "https://127.0.0.1:{port}/", "https://[::1]:{port}/"])
async def test_no_connection_is_made_to_an_address_that_is_not_public(
    world: World, webhook_settings: Settings, receiver: Receiver, url: str
) -> None:
    """However the URL got into the table: delivery does not rely on the check at registration."""
    user_id = new_id()
    await world.webhook(user_id, url.format(port=receiver.port))
    async with delivering(webhook_settings.model_copy(update={"webhook_allow": frozenset()})):
        await world.order("placed", user_id)
        await eventually(lambda: tried(world, 1))
    assert receiver.connections == 0
    assert "not public" in (await world.posts())[0]["cause"]


async def test_http_is_refused_once_its_host_is_no_longer_allowed(
    world: World, webhook_settings: Settings, receiver: Receiver
) -> None:
    user_id = new_id()
    await world.webhook(user_id, receiver.url)
    async with delivering(webhook_settings.model_copy(update={"webhook_allow": frozenset()})):
        await world.order("placed", user_id)
        await eventually(lambda: tried(world, 1))
    assert receiver.connections == 0
