"""Erasing an account removes all personal data."""

import asyncio
from typing import Any

from common.db.database import Database
from common.messaging.event_log import event_log
from common.messaging.outbox import outbox
from common.testing.plugin import eventually


async def everything(world: Any) -> str:
    tables = await world.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    contents = [await world.rows(f'SELECT t::text FROM "{row["tablename"]}" t') for row in tables]  # noqa: S608
    return str(contents)


async def publish(world: Any, person: Any) -> None:
    """Moves the person's events to the log, as the relay does."""
    columns = "event_id, type, subject, version, occurred_at, data, traceparent"
    await world.execute(
        f"WITH sent AS (DELETE FROM outbox WHERE subject = :id RETURNING *) "  # noqa: S608
        f"INSERT INTO event_log ({columns}) SELECT {columns} FROM sent ORDER BY id",
        id=person["id"],
    )


async def test_erasing_takes_every_trace_of_the_person_out_of_every_table(world: Any) -> None:
    person = await world.sign_up(name="Zora Quill", email="zora.quill@example.com", age=77)
    headers = world.bearer(person)
    await world.log_in(person["email"])
    await world.change_email(person, "quill.zora@example.com")
    await world.request_email(person, "zora.pending@example.com")
    await publish(world, person)
    await world.public.patch("/me", json={"name": "Zora Feather"}, headers=headers)
    await world.public.post("/email-verifications", headers=headers)
    for word in ("Zora", "quill", "zora.pending", "77", "203.0.113.1"):
        assert word in await everything(world)

    answer = await world.public.delete("/me", headers=headers)
    assert (answer.status_code, answer.content) == (204, b"")
    left = await everything(world)
    for word in ("Zora", "zora", "quill", "203.0.113.1", "argon2id"):
        assert word not in left
    for table in ("users", "known_networks", "secret_links"):
        assert await world.rows(f"SELECT 1 FROM {table}") == []  # noqa: S608


async def test_the_copy_of_an_event_that_cannot_be_sent_is_scrubbed_too(world: Any) -> None:
    person = await world.sign_up(name="Zora Quill")
    await world.execute(
        "INSERT INTO unsendable_events (outbox_id, event_id, type, subject, version, occurred_at, data, error)"
        " SELECT id, event_id, type, subject, version, occurred_at, data, 'too long' FROM outbox"
    )
    await world.public.delete("/me", headers=world.bearer(person))
    assert "Zora" not in await everything(world)
    [copy] = await world.rows("SELECT data FROM unsendable_events")
    assert copy["data"]["name"] == "Erased"


async def test_erasing_is_the_accounts_last_event(world: Any) -> None:
    person = await world.sign_up()
    await world.public.delete("/me", headers=world.bearer(person))
    assert (await world.events(person["id"]))[-1] == {
        "type": "users.user.erased.v1", "version": 2, "data": {"user_id": person["id"]}
    }  # fmt: skip
    assert (await world.public.get("/me", headers=world.bearer(person))).status_code == 404
    assert (await world.public.delete("/me", headers=world.bearer(person))).status_code == 404
    assert (await world.log_in(person["email"])).status_code == 401


async def test_scrubbed_events_still_fit_their_schema_and_others_stay_as_they_are(world: Any) -> None:
    person, other = await world.sign_up(), await world.sign_up(name="Bob", email="bob@example.com")
    await publish(world, person)
    await world.public.delete("/me", headers=world.bearer(person))
    [logged] = await world.rows("SELECT data FROM event_log")
    placeholders = {"name": "Erased", "email": "erased@waybill.invalid"}
    assert logged["data"] == {"user_id": person["id"], **placeholders, "role": "user", "send_welcome": False}
    [theirs] = await world.events(other["id"])
    assert (theirs["data"]["name"], theirs["data"]["email"]) == ("Bob", "bob@example.com")


async def test_the_address_of_an_erased_account_is_free_again(world: Any) -> None:
    person = await world.sign_up(email="ann@example.com")
    await world.public.delete("/me", headers=world.bearer(person))
    again = await world.sign_up(email="ann@example.com")
    assert again["id"] != person["id"]


async def test_an_event_that_the_relay_is_just_moving_is_scrubbed_in_the_log(world: Any, database: Database) -> None:
    person = await world.sign_up(name="Zora Quill")
    async with database.transaction() as relay:
        moved = (await relay.execute(outbox.delete().returning(outbox))).mappings().one()
        values = {column.name: moved[column.name] for column in outbox.columns if column.name != "id"}
        await relay.execute(event_log.insert().values(values))
        erasing = asyncio.create_task(world.public.delete("/me", headers=world.bearer(person)))

        async def waits_for_the_relay() -> bool:
            return bool(
                await world.rows(
                    "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
                )
            )

        await eventually(waits_for_the_relay)
    assert (await erasing).status_code == 204
    assert "Zora" not in await everything(world)
