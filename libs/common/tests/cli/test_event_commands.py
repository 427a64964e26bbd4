import json

import aio_pika
import pytest

from common.cli import event_commands
from common.testing.plugin import eventually

from .shop import Shop

NOT_BOUND = "Error: there is no queue 'nowhere' bound to shop.replay; its owner binds it there, by its name\n"


async def test_history_is_sent_to_one_queue_and_a_consumer_that_had_it_ignores_it(shop: Shop) -> None:
    async with shop.open():
        for number in range(5):
            await shop.sell(number, number + 1)
        await eventually(lambda: _count(shop, 5))
        await eventually(lambda: _published(shop, 5))
        assert [row["data"]["number"] for row in await shop.json(event_commands.events, "tail")] == [0, 1, 2, 3, 4]

        async with await aio_pika.connect(shop.settings.amqp_url.get_secret_value()) as connection:
            channel = await connection.channel()
            late = await channel.declare_queue("late", exclusive=True)
            await late.bind("shop.replay", "late")
            sent = await shop.command(event_commands.events, "replay", "--since", "1h", "--to-queue", "late")
            assert sent.stdout == "position 5 reached, 5 events sent to late\n"
            bodies = [(await late.get(no_ack=True)).body for _ in range(5)]
            assert [json.loads(body)["number"] for body in bodies] == [0, 1, 2, 3, 4]
        await shop.command(event_commands.events, "replay", "--since", "1h", "--to-queue", "shop.inbound")
        await shop.sell(5, 6)
        await eventually(lambda: _count(shop, 6))
    assert await shop.effects() == ["0", "1", "2", "3", "4", "5"]


async def test_history_of_any_length_is_printed_as_it_is_read(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.messaging.replay._PAGE", 2)
    assert await shop.json(event_commands.events, "tail") == []
    assert (await shop.command(event_commands.events, "tail")).output == "none\n"
    async with shop.open():
        for number in range(5):
            await shop.sell(number, number + 1)
        await eventually(lambda: _published(shop, 5))
    assert [row["version"] for row in await shop.json(event_commands.events, "tail")] == [1, 2, 3, 4, 5]
    printed = (await shop.command(event_commands.events, "tail")).output
    assert (printed.count("shop.item.sold.v1"), printed.count("published_at")) == (5, 3), "three tables"


async def _published(shop: Shop, expected: int) -> bool:
    return len(await shop.json(event_commands.events, "tail")) == expected


async def _count(shop: Shop, expected: int) -> bool:
    return len(await shop.effects()) >= expected


async def test_a_replay_to_a_missing_queue_is_an_error(shop: Shop) -> None:
    async with shop.open():
        await shop.sell(1, 1)
        await eventually(lambda: shop.json(event_commands.events, "tail"))
        result = await shop.command(event_commands.events, "replay", "--since", "1h", "--to-queue", "nowhere")
        assert (result.exit_code, result.output) == (1, NOT_BOUND)


async def test_a_replay_of_no_events_to_a_missing_queue_is_an_error_too(shop: Shop) -> None:
    result = await shop.command(event_commands.events, "replay", "--since", "1h", "--to-queue", "nowhere")
    assert (result.exit_code, result.output) == (1, NOT_BOUND)


@pytest.mark.parametrize("name", ["", "a" * 256, "queue\n", "\udcff"])
async def test_an_invalid_queue_name_is_a_usage_error(shop: Shop, name: str) -> None:
    result = await shop.command(event_commands.events, "replay", "--since", "1h", "--to-queue", name)
    assert result.exit_code == 2
    assert "not a valid queue name" in result.output


async def test_a_full_queue_is_reported_differently_from_a_missing_one(shop: Shop) -> None:
    async with shop.open():
        await shop.sell(1, 1)
        await eventually(lambda: shop.json(event_commands.events, "tail"))
        async with await aio_pika.connect(shop.settings.amqp_url.get_secret_value()) as connection:
            full = await (await connection.channel()).declare_queue(
                "full", arguments={"x-max-length": 0, "x-overflow": "reject-publish"}
            )
            await full.bind("shop.replay", "full")
            result = await shop.command(event_commands.events, "replay", "--since", "1h", "--to-queue", "full")
            assert result.exit_code == 1
            assert result.output.startswith("Error: full refuses messages")
            await (await connection.channel()).queue_delete("full")


@pytest.mark.parametrize("since", ["yesterday", "5", "-1h", "2026-13-01", "999999d", "0001-01-01T00:00:00+14:00"])
async def test_an_invalid_time_is_refused_with_an_example(shop: Shop, since: str) -> None:
    result = await shop.command(event_commands.events, "tail", "--since", since)
    assert result.exit_code == 2
    assert "24h" in result.output or "No such option" in result.output
