import json

import aio_pika
from pydantic import SecretStr
from sqlalchemy.engine import make_url

from common.cli import audit_commands, consumer_commands, event_commands, outbox_commands
from common.testing.plugin import eventually

from .shop import Shop


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
        [act] = await shop.json(audit_commands.audit, "tail")
        assert (act["action"], act["subject"], act["detail"]) == ("parked.replayed", row["id"], "shop.item.sold.v1")
        assert act["actor"].startswith("operator:")
        again = await shop.command(consumer_commands.parked, "replay", row["id"])
        assert again.exit_code == 1
        assert "not waiting" in again.output
        assert await shop.waiting() == []
        assert await shop.json(audit_commands.audit, "tail") == [act]
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
        assert (await shop.command(consumer_commands.parked, "discard", row["id"], "--reason", "again")).exit_code == 1
        [act] = await shop.json(audit_commands.audit, "tail")
        assert (act["action"], act["subject"], act["detail"]) == ("parked.discarded", row["id"], "a typo")


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


async def test_an_unreachable_or_refusing_server_is_reported_in_a_sentence_without_a_traceback(shop: Shop) -> None:
    async with shop.open():
        pass
    url = make_url(shop.settings.database_url.get_secret_value())
    for wrong, said in ((url.set(port=1), "cannot reach the server"), (url.set(database="none"), "the server refuses")):
        shop.settings = shop.settings.model_copy(
            update={"database_url": SecretStr(wrong.render_as_string(hide_password=False))}
        )
        for command, words in (
            (outbox_commands.outbox, ["status"]),
            (event_commands.events, ["tail"]),
            (event_commands.events, ["replay", "--since", "1h", "--to-queue", "shop.inbound"]),
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
        await eventually(lambda: shop.json(event_commands.events, "tail"))
        replayed = await shop.json(event_commands.events, "replay", "--since", "1h", "--to-queue", "shop.inbound")
        assert replayed == {"sent": 1, "queue": "shop.inbound", "position": 1}
        assert await shop.json(consumer_commands.parked, "replay", "--all") == {"sent": 0, "not_waiting": []}
        async with await aio_pika.connect(shop.settings.amqp_url.get_secret_value()) as connection:
            exchange = await (await connection.channel()).get_exchange("shop.events")
            await exchange.publish(aio_pika.Message(b"nonsense"), "shop.item.sold.v1")
        (row,) = await eventually(shop.waiting)
        assert (await shop.json(consumer_commands.parked, "show", row["id"]))["body"] == "nonsense"
        assert await shop.json(consumer_commands.parked, "discard", row["id"], "--reason", "x") == {
            "discarded": row["id"]
        }
