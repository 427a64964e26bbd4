"""The log of a webhook's deliveries, their order, and when they are tried again."""

from datetime import timedelta
from functools import partial
from uuid import UUID

import pytest

from common.db.database import new_id, utc_now
from common.testing.plugin import eventually
from notifier import operations
from notifier.webhooks import queue

from .receiver import OK, Receiver, answer
from .webhook_owner import PLACED, Owner
from .webhook_waiting import make_due, settled, tried
from .world import World, holds


async def test_a_delivery_lists_its_attempts_and_the_beginning_of_the_last_response(
    owner: Owner, me: UUID, world: World, receiver: Receiver
) -> None:
    await owner.register(receiver.url)
    said = "".join(str(number) for number in range(1000)).encode()
    receiver.answers = [
        b"HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\na\0\xffb",
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(said) + said,
    ]
    await world.order("placed", me)
    await eventually(lambda: tried(world, 1))
    [item] = (await owner.call("GET", f"{owner.id}/deliveries?state=pending"))["items"]
    failed = await owner.delivery(item["event_id"])
    assert failed["answer"] == "a\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}b"
    await make_due(world)
    await eventually(lambda: settled(world, "sent"))
    delivery = await owner.delivery(item["event_id"])
    assert [(each["status_code"], each["cause"]) for each in delivery["attempts"]] == [
        (500, "answered 500"),
        (200, None),
    ]
    assert all(0 <= each["duration_ms"] < 10_000 for each in delivery["attempts"])
    assert all(each["at"] >= delivery["created_at"] for each in delivery["attempts"])
    assert delivery["answer"] == said[:500].decode()
    sent_again = await owner.call("POST", f"{owner.id}/deliveries/{item['event_id']}/resend", status=202)
    assert (sent_again["state"], sent_again["attempts"]) == ("pending", 2)
    await eventually(lambda: settled(world, "sent"))
    assert [request.id for request in receiver.requests] == [item["event_id"]] * 3
    assert len((await owner.delivery(item["event_id"]))["attempts"]) == 3
    await owner.call("GET", f"{owner.id}/deliveries/{new_id()}", status=404)
    await owner.call("POST", f"{owner.id}/deliveries/{new_id()}/resend", status=404)
    assert (await owner.call("GET", f"{owner.id}/deliveries?state=failed"))["items"] == []


async def test_the_events_of_an_order_arrive_in_order_whatever_becomes_of_the_one_before(
    owner: Owner, me: UUID, world: World, receiver: Receiver
) -> None:
    states = ["placed", "confirmed", "shipped"]
    await owner.register(receiver.url, *(f"orders.order.{state}.v1" for state in [*states, "delivered"]))
    receiver.answers = [answer(500), OK, answer(410)]
    order_id = new_id()
    for version, state in enumerate(states, 1):
        await world.order(state, me, order_id, version=version)
    await eventually(lambda: tried_first(world))
    assert sorted(await world.post_states()) == ["pending", "waiting", "waiting"]
    await world.order("placed", me)
    await eventually(lambda: settled(world, "pending", "waiting", "waiting", "sent"))
    await make_due(world)
    await eventually(lambda: settled(world, "failed", "sent", "sent", "sent"))
    assert posted(receiver) == ["placed", "placed", "placed", "confirmed", "shipped"]
    first = receiver.requests[0].id
    receiver.answers = [answer(500)]
    await owner.call("POST", f"{owner.id}/deliveries/{first}/resend", status=202)
    await eventually(lambda: tried_first(world))
    await world.order("delivered", me, order_id, version=4)
    assert sorted(await world.post_states()) == ["pending", "sent", "sent", "sent", "waiting"]
    await owner.call("POST", f"{owner.id}/deliveries/{first}/resend", status=202)
    await eventually(lambda: settled(world, *["sent"] * 5))
    assert posted(receiver)[5:] == ["placed", "placed", "delivered"]


def posted(receiver: Receiver) -> list[str]:
    return [request.event["type"].split(".")[2] for request in receiver.requests]


async def tried_first(world: World) -> bool:
    return bool(await world.rows("SELECT 1 FROM webhook_deliveries WHERE state = 'pending' AND cause IS NOT NULL"))


async def test_a_receiver_is_not_tried_before_the_time_that_it_asks_for(
    owner: Owner, me: UUID, world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "DELAYS", (60.0,) * 8)
    await owner.register(receiver.url)
    later = (utc_now() + timedelta(seconds=1800)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    asked: list[tuple[str, float, float]] = [
        *(("600", 590, 600), (later, 1700, 1800), ("999999", 3590, 3600), ("soon", 40, 75), ("0", 40, 75), ("", 40, 75))
    ]
    for tries, (value, least, most) in enumerate(asked, 1):
        receiver.answers = [answer(429, f"Retry-After: {value}")]
        if tries == 1:
            await world.order("placed", me)
        else:
            await make_due(world)
            await world.rows("SELECT pg_notify('webhook_deliveries', '')")
        await eventually(partial(tried, world, tries))
        [row] = await world.rows("SELECT extract(epoch FROM due_at - now()) AS wait FROM webhook_deliveries")
        assert least <= row["wait"] <= most, value


async def test_a_test_is_tried_once(owner: Owner, world: World, receiver: Receiver) -> None:
    await owner.register(receiver.url)
    receiver.answers = [answer(500)]
    event_id = (await owner.call("POST", f"{owner.id}/test", status=202))["event_id"]
    await eventually(lambda: settled(world, "failed"))
    assert (await owner.delivery(event_id))["cause"] == "answered 500"
    await owner.call("PATCH", owner.id, enabled=False)
    await owner.call("POST", f"{owner.id}/test", status=202)
    await eventually(lambda: settled(world, "failed", "sent"))


async def test_attempts_of_requests_that_got_no_response_are_listed_too(owner: Owner, me: UUID, world: World) -> None:
    await owner.register("https://nobody.invalid/")
    await world.order("placed", me)
    await eventually(lambda: tried(world, 1))
    [post] = await world.posts()
    [attempt] = (await owner.delivery(post["event_id"]))["attempts"]
    assert attempt["status_code"] is None
    assert "does not resolve" in attempt["cause"]


async def test_operators_list_every_delivery_and_send_settled_ones_again(
    owner: Owner, me: UUID, world: World, receiver: Receiver
) -> None:
    await owner.register(receiver.url, PLACED, "orders.order.confirmed.v1")
    order_id = await world.order("placed", me)
    await world.order("confirmed", me, order_id, version=2)
    await eventually(lambda: settled(world, "sent", "sent"))
    async with world.database.transaction() as session:
        rows = await operations.deliveries(session, state="sent", channel="webhook", since=None, limit=None)
        assert {row["order_id"] for row in rows} == {order_id}
        chosen = [operations.DeliveryId.parse(row["id"]) for row in rows]
        unknown = operations.DeliveryId(new_id(), new_id())
        assert await operations.resend(session, [*chosen, unknown]) == set(chosen)
    await eventually(lambda: settled(world, "sent", "sent"))
    await eventually(lambda: holds(posted(receiver) == ["placed", "confirmed"] * 2))
    await owner.call("PATCH", owner.id, enabled=False)
    async with world.database.transaction() as session:
        assert await operations.resend(session, chosen) == set()
