"""A consumer that starts a day late receives the whole history, and a replay does not affect the other consumers."""

import json
import subprocess
from collections.abc import AsyncIterator
from typing import Any

import aio_pika
import asyncpg
import pytest
from aio_pika.abc import AbstractIncomingMessage

from common.testing.plugin import eventually
from waybill_dev.testing import StackUnderTest

from .conftest import Team

# Readers of the log do not depend on the day; the rows move to another partition.
A_DAY_AGO = "UPDATE event_log SET published_at = published_at - interval '1 day' WHERE subject = $1 RETURNING event_id"


@pytest.fixture
async def log(stack: StackUnderTest) -> AsyncIterator[Any]:
    """A connection to orders' database, to age its events."""
    connection = await asyncpg.connect(stack.status["services"]["orders"]["database_url"])
    yield connection
    await connection.close()


@pytest.mark.slow
async def test_a_consumer_that_starts_a_day_late_receives_the_whole_history_and_others_are_unaffected(
    stack: StackUnderTest, team: Team, customer: Any, admin: Any, mailbox: Any, log: Any
) -> None:
    order = (await customer.order()).json()["id"]
    await admin.client.post(f"/orders/{order}/confirm", headers=admin.bearer)

    async def mailed() -> bool:
        return len(mailbox.to(customer.email)) == 2

    await eventually(mailed, within=30)
    yesterday = [row["event_id"] for row in await eventually(lambda: aged(log, order), within=30)]

    async with await aio_pika.connect(team.amqp_url) as connection:
        channel = await connection.channel()
        late = await channel.get_queue(f"{team.name}.inbound", ensure=False)
        await late.bind("orders.events", "orders.order.#")  # first, so that no later event is missed
        await late.bind("orders.replay", late.name)
        shipping = {"carrier": "Postal", "tracking_number": "PX-42"}
        await admin.client.post(f"/orders/{order}/ship", json=shipping, headers=admin.bearer)
        received: list[AbstractIncomingMessage] = []

        async def receive(message: AbstractIncomingMessage) -> None:
            if message.headers["cloudEvents_subject"] == order:
                received.append(message)
            await message.ack()

        await late.consume(receive)
        for queue in (late.name, "notifier.inbound"):
            output = stack.dev("ops", "orders", "events", "replay", "--since", "2d", "--to-queue", queue)
            assert output.endswith(f"events sent to {queue}\n")

        async def all_there() -> bool:
            return {version(message) for message in received} == {1, 2, 3}

        await eventually(all_there, within=30)
        history = [message for message in received if version(message) < 3]
        assert [message.message_id for message in history] == [str(event_id) for event_id in yesterday]
        assert [version(message) for message in history] == [1, 2]
        assert json.loads(history[0].body)["order_id"] == order

    # A last order is behind all replayed events in notifier's queue.
    last = (await customer.order()).json()["id"]
    await mailbox.wait_for(customer.email, last, within=60)
    assert len(mailbox.to(customer.email)) == 4
    kinds = [
        item["kind"] for item in (await customer.get("/notifications")).json()["items"] if item["order_id"] == order
    ]
    assert sorted(kinds) == ["order_confirmed", "order_placed", "order_shipped"]


def version(message: AbstractIncomingMessage) -> int:
    return int(str(message.headers["cloudEvents_aggregateversion"]))


async def aged(log: Any, order: str) -> list[Any]:
    """Makes both events a day older, once they are in the log."""
    if await log.fetchval("SELECT count(*) FROM event_log WHERE subject = $1", order) < 2:
        return []
    return sorted(await log.fetch(A_DAY_AGO, order))


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["tail", "--since", "yesterday"], 2, "24h"),
        (["tail", "--type", "orders.order.plcaed.v1"], 2, "orders.order.placed.v1"),
        (["replay", "--since", "1h"], 2, "--to-queue"),
        (["replay", "--since", "1h", "--to-queue", "nobodys.inbound"], 1, "there is no queue 'nobodys.inbound'"),
    ],
)
def test_a_mistake_is_answered_with_a_sentence_and_an_exit_code(
    stack: StackUnderTest, words: list[str], code: int, said: str
) -> None:
    with pytest.raises(subprocess.CalledProcessError) as failure:
        stack.dev("ops", "orders", "events", *words)
    assert failure.value.returncode == code
    assert said in failure.value.stderr
    assert "Traceback" not in failure.value.stderr


async def test_several_types_are_shown_and_no_other(stack: StackUnderTest, customer: Any, admin: Any) -> None:
    order = (await customer.order()).json()["id"]
    for step in ("confirm", "cancel"):
        await admin.client.post(f"/orders/{order}/{step}", headers=admin.bearer)
    words = ("--type", "orders.order.placed.v1", "--type", "orders.order.cancelled.v1", "--json")

    async def shown() -> bool:
        rows = json.loads(stack.dev("ops", "orders", "events", "tail", *words))
        return [row["type"].split(".")[2] for row in rows if row["subject"] == order] == ["placed", "cancelled"]

    await eventually(shown, within=30)
