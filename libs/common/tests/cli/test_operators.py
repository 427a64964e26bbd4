import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import aio_pika
import pytest
from click.testing import CliRunner, Result
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncSession

from common.cli import consumer_commands, producer_commands
from common.db.database import Database
from common.messaging.cloudevents import Event
from common.messaging.consumer import Consumer
from common.messaging.event_handlers import EventHandlers, Received
from common.messaging.outbox import record
from common.messaging.relay import relay
from common.runtime.health import Health
from common.settings import ServiceSettings
from common.testing.plugin import eventually

NOT_BOUND = "Error: there is no queue 'nowhere' bound to shop.replay; its owner binds it there, by its name\n"


class Sold(Event):
    type: ClassVar[str] = "shop.item.sold.v1"

    number: int


class Shop:
    """The made-up service: its relay, and a consumer whose handler fails while `broken`."""

    def __init__(self, settings: ServiceSettings, database: Database) -> None:
        self.settings = settings
        self.database = database
        self.broken = False

    async def sell(self, number: int, version: int) -> None:
        async with self.database.transaction() as session:
            await record(session, Sold(number=number), subject="item", version=version)

    async def effects(self) -> list[str]:
        async with self.database.transaction() as session:
            return list((await session.execute(text("SELECT note FROM effects ORDER BY position"))).scalars())

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Runs relay and consumer. The queue is bound when the block starts."""
        stop, health = asyncio.Event(), Health()
        running = asyncio.ensure_future(self._run(stop, health))
        try:
            await eventually(lambda: _ready(health))
            yield
        finally:
            stop.set()
            await running

    async def _run(self, stop: asyncio.Event, health: Health) -> None:
        handlers = EventHandlers()

        @handlers.on("shop.item.sold.v1", Sold)
        async def sold(session: AsyncSession, event: Received[Sold]) -> None:
            if self.broken:
                raise RuntimeError("broken")
            await session.execute(text("INSERT INTO effects (note) VALUES (:note)"), {"note": str(event.data.number)})

        await asyncio.gather(
            relay(self.settings, Health(), stop), Consumer(self.settings, self.database, handlers, health).run(stop)
        )

    async def command(self, command: Any, *arguments: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, command, arguments, obj=lambda _: self.settings)

    async def waiting(self) -> Any:
        """What `parked list` shows."""
        return await self.json(consumer_commands.parked, "list")

    async def json(self, command: Any, *arguments: str) -> Any:
        result = await self.command(command, *arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)


async def _ready(health: Health) -> bool:
    return (await health.ready())[0]


@pytest.fixture
def shop(settings: ServiceSettings, database: Database) -> Shop:
    return Shop(settings, database)


async def test_a_parked_message_is_listed_with_its_cause_and_has_its_effect_once_after_a_replay(shop: Shop) -> None:
    shop.broken = True
    async with shop.open():
        await shop.sell(1, 1)
        (row,) = await eventually(shop.waiting, within=20)
        assert row["cause"] == "RuntimeError: broken"
        table = (await shop.command(consumer_commands.parked, "list")).stdout
        assert {row["id"], row["event_id"]} <= set(table.split())
        shown = json.loads((await shop.command(consumer_commands.parked, "show", row["id"])).stdout)
        assert shown["body"] == '{"number": 1}'

        shop.broken = False
        assert (
            await shop.command(consumer_commands.parked, "replay", row["id"])
        ).output == "1 sent to the consumer again\n"
        await eventually(shop.effects)
        again = await shop.command(consumer_commands.parked, "replay", row["id"])
        assert again.exit_code == 1
        assert "not waiting" in again.output
        assert await shop.waiting() == []
    assert await shop.effects() == ["1"]


async def test_a_parked_message_that_fails_again_after_its_replay_waits_again_with_its_new_cause(shop: Shop) -> None:
    shop.broken = True
    async with shop.open():
        await shop.sell(1, 1)
        (before,) = await eventually(shop.waiting, within=20)
        for _ in range(2):
            await shop.command(consumer_commands.parked, "replay", "--all")

        async def failed_again() -> bool:
            (row,) = await shop.waiting()
            return bool(row["parked_at"] > before["parked_at"])

        await eventually(failed_again, within=20)
        (row,) = await shop.waiting()
        assert (row["id"], row["attempts"]) == (before["id"], 4)
    assert await shop.effects() == []


async def test_text_from_a_sender_is_escaped_and_cannot_control_the_terminal(shop: Shop) -> None:
    async with shop.open():
        async with await aio_pika.connect(shop.settings.amqp_url.get_secret_value()) as connection:
            exchange = await (await connection.channel()).get_exchange("shop.events")
            hostile = aio_pika.Message(b"nonsense", message_id="[/red]\x1b[2J", type="[bold]sold")
            await exchange.publish(hostile, "shop.item.sold.v1")
        await eventually(shop.waiting)
        table = (await shop.command(consumer_commands.parked, "list")).output
    assert "[/red]\\x1b[2J" in table
    assert "[bold]sold" in table


async def test_a_message_is_discarded_only_with_a_reason(shop: Shop) -> None:
    async with shop.open():
        async with await aio_pika.connect(shop.settings.amqp_url.get_secret_value()) as connection:
            exchange = await (await connection.channel()).get_exchange("shop.events")
            await exchange.publish(aio_pika.Message(b"nonsense"), "shop.item.sold.v1")
        (row,) = await eventually(shop.waiting)
        assert (await shop.command(consumer_commands.parked, "discard", row["id"])).exit_code == 2
        assert (await shop.command(consumer_commands.parked, "discard", row["id"], "--reason", " ")).exit_code == 2
        assert (await shop.command(consumer_commands.parked, "discard", row["id"], "--reason", "a typo")).exit_code == 0
        assert await shop.waiting() == []
        shown = json.loads((await shop.command(consumer_commands.parked, "show", row["id"])).stdout)
        assert (shown["resolution"], shown["reason"]) == ("discarded", "a typo")


async def test_history_is_sent_to_one_queue_and_a_consumer_that_had_it_ignores_it(shop: Shop) -> None:
    async with shop.open():
        for number in range(5):
            await shop.sell(number, number + 1)
        await eventually(lambda: _count(shop, 5))
        await eventually(lambda: _published(shop, 5))
        assert [row["data"]["number"] for row in await shop.json(producer_commands.events, "tail")] == [0, 1, 2, 3, 4]

        async with await aio_pika.connect(shop.settings.amqp_url.get_secret_value()) as connection:
            channel = await connection.channel()
            late = await channel.declare_queue("late", exclusive=True)
            await late.bind("shop.replay", "late")
            sent = await shop.command(producer_commands.events, "replay", "--since", "1h", "--to-queue", "late")
            assert sent.output == "5 events sent to late\n"
            bodies = [(await late.get(no_ack=True)).body for _ in range(5)]
            assert [json.loads(body)["number"] for body in bodies] == [0, 1, 2, 3, 4]
        await shop.command(producer_commands.events, "replay", "--since", "1h", "--to-queue", "shop.inbound")
        await shop.sell(5, 6)
        await eventually(lambda: _count(shop, 6))
    assert await shop.effects() == ["0", "1", "2", "3", "4", "5"]


async def test_history_of_any_length_is_printed_as_it_is_read(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.messaging.replay._PAGE", 2)
    assert await shop.json(producer_commands.events, "tail") == []
    assert (await shop.command(producer_commands.events, "tail")).output == "none\n"
    async with shop.open():
        for number in range(5):
            await shop.sell(number, number + 1)
        await eventually(lambda: _published(shop, 5))
    assert [row["version"] for row in await shop.json(producer_commands.events, "tail")] == [1, 2, 3, 4, 5]
    printed = (await shop.command(producer_commands.events, "tail")).output
    assert (printed.count("shop.item.sold.v1"), printed.count("published_at")) == (5, 3), "three tables"


async def _published(shop: Shop, expected: int) -> bool:
    return len(await shop.json(producer_commands.events, "tail")) == expected


async def _count(shop: Shop, expected: int) -> bool:
    return len(await shop.effects()) >= expected


async def test_a_replay_to_a_missing_queue_is_an_error(shop: Shop) -> None:
    async with shop.open():
        await shop.sell(1, 1)
        await eventually(lambda: shop.json(producer_commands.events, "tail"))
        result = await shop.command(producer_commands.events, "replay", "--since", "1h", "--to-queue", "nowhere")
        assert (result.exit_code, result.output) == (1, NOT_BOUND)


async def test_a_replay_of_no_events_to_a_missing_queue_is_an_error_too(shop: Shop) -> None:
    result = await shop.command(producer_commands.events, "replay", "--since", "1h", "--to-queue", "nowhere")
    assert (result.exit_code, result.output) == (1, NOT_BOUND)


@pytest.mark.parametrize("name", ["", "a" * 256, "queue\n", "\udcff"])
async def test_an_invalid_queue_name_is_a_usage_error(shop: Shop, name: str) -> None:
    result = await shop.command(producer_commands.events, "replay", "--since", "1h", "--to-queue", name)
    assert result.exit_code == 2
    assert "not a valid queue name" in result.output


async def test_a_full_queue_is_reported_differently_from_a_missing_one(shop: Shop) -> None:
    async with shop.open():
        await shop.sell(1, 1)
        await eventually(lambda: shop.json(producer_commands.events, "tail"))
        async with await aio_pika.connect(shop.settings.amqp_url.get_secret_value()) as connection:
            full = await (await connection.channel()).declare_queue(
                "full", arguments={"x-max-length": 0, "x-overflow": "reject-publish"}
            )
            await full.bind("shop.replay", "full")
            result = await shop.command(producer_commands.events, "replay", "--since", "1h", "--to-queue", "full")
            assert result.exit_code == 1
            assert result.output.startswith("Error: full refuses messages")
            await (await connection.channel()).queue_delete("full")


async def test_outbox_status_shows_the_number_and_the_age_of_pending_events(shop: Shop) -> None:
    assert await shop.json(producer_commands.outbox, "status") == {"pending": 0, "oldest_age_seconds": 0}
    await shop.sell(1, 1)
    status = await shop.json(producer_commands.outbox, "status")
    assert status["pending"] == 1
    assert status["oldest_age_seconds"] > 0


async def test_queues_shows_depth_and_consumers_of_inbound_retry_and_parked_queues(shop: Shop) -> None:
    assert "has the consume role ever run?" in (await shop.command(consumer_commands.queues)).output
    async with shop.open():
        await shop.sell(1, 1)
        await eventually(shop.effects)
        rows = {row["name"]: row for row in await shop.json(consumer_commands.queues)}
        assert list(rows) == [
            "shop.inbound",
            "shop.inbound.retry.5s",
            "shop.inbound.retry.1m",
            "shop.inbound.retry.10m",
            "shop.inbound.parked",
        ]
        assert rows["shop.inbound"]["consumers"] == 1


@pytest.mark.parametrize("since", ["yesterday", "5", "-1h", "2026-13-01", "999999d", "0001-01-01T00:00:00+14:00"])
async def test_an_invalid_time_is_refused_with_an_example(shop: Shop, since: str) -> None:
    result = await shop.command(producer_commands.events, "tail", "--since", since)
    assert result.exit_code == 2
    assert "24h" in result.output or "No such option" in result.output


async def test_an_unreachable_or_refusing_server_is_reported_in_a_sentence_without_a_traceback(shop: Shop) -> None:
    async with shop.open():
        pass
    url = make_url(shop.settings.database_url.get_secret_value())
    for wrong, said in ((url.set(port=1), "cannot reach the server"), (url.set(database="none"), "the server refuses")):
        shop.settings = shop.settings.model_copy(
            update={"database_url": SecretStr(wrong.render_as_string(hide_password=False))}
        )
        for command, words in (
            (producer_commands.outbox, ["status"]),
            (producer_commands.events, ["tail"]),
            (producer_commands.events, ["replay", "--since", "1h", "--to-queue", "shop.inbound"]),
            (consumer_commands.parked, ["list"]),
            (consumer_commands.parked, ["replay", "--all"]),
        ):
            result = await shop.command(command, *words)
            assert result.exit_code == 1
            assert result.output.startswith(f"Error: {said}: ")


async def test_a_parked_message_whose_queue_was_deleted_stays_parked(shop: Shop) -> None:
    shop.broken = True
    async with shop.open():
        await shop.sell(1, 1)
        before = await eventually(shop.waiting, within=20)
    async with await aio_pika.connect(shop.settings.amqp_url.get_secret_value()) as connection:
        await (await connection.channel()).queue_delete("shop.inbound")
    result = await shop.command(consumer_commands.parked, "replay", "--all")
    assert result.exit_code == 1
    assert result.output == "Error: no queue shop.inbound: has the consume role ever run?\n"
    assert await shop.waiting() == before


async def test_every_command_reports_its_result_as_json(shop: Shop) -> None:
    async with shop.open():
        await shop.sell(1, 1)
        await eventually(lambda: shop.json(producer_commands.events, "tail"))
        replayed = await shop.json(producer_commands.events, "replay", "--since", "1h", "--to-queue", "shop.inbound")
        assert replayed == {"sent": 1, "queue": "shop.inbound"}
        assert await shop.json(consumer_commands.parked, "replay", "--all") == {"sent": 0, "not_waiting": []}
        async with await aio_pika.connect(shop.settings.amqp_url.get_secret_value()) as connection:
            exchange = await (await connection.channel()).get_exchange("shop.events")
            await exchange.publish(aio_pika.Message(b"nonsense"), "shop.item.sold.v1")
        (row,) = await eventually(shop.waiting)
        assert (await shop.json(consumer_commands.parked, "show", row["id"]))["body"] == "nonsense"
        assert await shop.json(consumer_commands.parked, "discard", row["id"], "--reason", "x") == {
            "discarded": row["id"]
        }
