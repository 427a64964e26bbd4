import json
from typing import Any

import asyncpg

from common.cli import audit_commands, outbox_commands
from common.messaging import unsendable

from .shop import Shop


async def test_outbox_status_shows_the_number_and_the_age_of_pending_events(shop: Shop) -> None:
    assert await shop.json(outbox_commands.outbox, "status") == {"pending": 0, "oldest_age_seconds": 0}
    await shop.sell(1, 1)
    status = await shop.json(outbox_commands.outbox, "status")
    assert status["pending"] == 1
    assert status["oldest_age_seconds"] > 0


async def set_aside_first(shop: Shop) -> None:
    connection = await asyncpg.connect(shop.database.dsn)
    try:
        first = await connection.fetchval("SELECT min(id) FROM outbox")
        await unsendable.set_aside(connection, {first: ValueError("[bold]too\x1b long\x00")})
    finally:
        await connection.close()


async def shown(shop: Shop) -> Any:
    return (await shop.json(outbox_commands.outbox, "show"))["unsendable"]


async def test_show_lists_what_waits_by_type_and_each_unsendable_event_with_what_waits_behind_it(shop: Shop) -> None:
    for version in (1, 2, 3):
        await shop.sell(version, version)
    await set_aside_first(shop)
    listed = await shop.json(outbox_commands.outbox, "show")
    (by_type,), (row,) = listed["types"], listed["unsendable"]
    assert (by_type["type"], by_type["pending"]) == ("shop.item.sold.v1", 3)
    assert by_type["oldest_age_seconds"] > 0
    assert (row["type"], row["subject"], row["version"]) == ("shop.item.sold.v1", "item", 1)
    assert (row["error"], row["waiting_behind"]) == ("ValueError: [bold]too\x1b long", 2)
    table = (await shop.command(outbox_commands.outbox, "show")).output
    assert row["id"] in table
    assert "[bold]too\\x1b long" in table
    whole = json.loads((await shop.command(outbox_commands.outbox, "show", "--id", row["id"])).output)
    assert (whole["event_id"], whole["data"]) == (row["id"], {"number": 1})


async def test_an_event_is_skipped_only_with_a_reason_and_only_once(shop: Shop) -> None:
    await shop.sell(1, 1)
    await set_aside_first(shop)
    (row,) = await shown(shop)
    for words in ([], ["--reason", " "]):
        assert (await shop.command(outbox_commands.outbox, "skip", row["id"], *words)).exit_code == 2
    skip = ("skip", row["id"], "--reason", "a typo")
    assert await shop.json(outbox_commands.outbox, *skip) == {"skipped": row["id"]}
    assert (await shop.command(outbox_commands.outbox, *skip)).exit_code == 1
    assert await shown(shop) == []
    assert (await shop.json(outbox_commands.outbox, "status"))["pending"] == 0
    whole = json.loads((await shop.command(outbox_commands.outbox, "show", "--id", row["id"])).output)
    assert (whole["reason"], whole["data"]) == ("a typo", {"number": 1})
    [act] = await shop.json(audit_commands.audit, "tail")
    assert (act["action"], act["subject"], act["detail"]) == ("outbox.skipped", row["id"], "a typo")


async def test_an_event_that_can_be_sent_is_not_skipped(shop: Shop) -> None:
    await shop.sell(1, 1)
    connection = await asyncpg.connect(shop.database.dsn)
    event_id = str(await connection.fetchval("SELECT event_id FROM outbox"))
    await connection.close()
    for words in (("skip", event_id, "--reason", "x"), ("show", "--id", event_id), ("retry", event_id)):
        assert (await shop.command(outbox_commands.outbox, *words)).exit_code == 1
    assert await shop.json(audit_commands.audit, "tail") == []
    assert (await shop.json(outbox_commands.outbox, "status"))["pending"] == 1


async def test_events_are_left_to_the_relay_again(shop: Shop) -> None:
    await shop.sell(1, 1)
    for words in (["--all"], None):
        await set_aside_first(shop)
        (row,) = await shown(shop)
        retried = await shop.json(outbox_commands.outbox, "retry", *(words or [row["id"]]))
        assert retried == {"retried": 1, "not_waiting": []}
        assert await shown(shop) == []
    acts = await shop.json(audit_commands.audit, "tail")
    assert [(act["action"], act["subject"]) for act in acts] == [("outbox.retried", row["id"])] * 2
    assert (await shop.command(outbox_commands.outbox, "retry")).exit_code == 2
    assert (await shop.json(outbox_commands.outbox, "status"))["pending"] == 1
