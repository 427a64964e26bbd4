"""Rows past their retention are deleted, and no others."""

from typing import Any

from users.retention import delete_expired

TABLES = ("login_backoffs", "login_buckets", "known_networks", "secret_links")


async def test_cleanup_deletes_rows_past_their_retention_and_no_others(world: Any) -> None:
    person = await world.sign_up()
    await world.log_in(person["email"])
    await world.public.post("/email-verifications", headers=world.bearer(person))

    async def kept() -> list[int]:
        await delete_expired(world.database)
        return [len(await world.rows(f"SELECT 1 FROM {table}")) for table in TABLES]  # noqa: S608

    assert await kept() == [1, 5, 1, 1]
    await world.time_passes(86_400 + 60)
    await world.execute("UPDATE secret_links SET requested_at = requested_at - interval '6 days'")
    assert await kept() == [0, 0, 1, 1]
    await world.time_passes(180 * 86_400)
    await world.execute("UPDATE secret_links SET requested_at = requested_at - interval '3 days'")
    assert await kept() == [0, 0, 1, 1]  # nobody has signed in since
    other = await world.sign_up(email="bea@example.com")
    await world.log_in(other["email"])
    assert (await kept())[2:] == [1, 0]
    assert (await world.public.get("/me", headers=world.bearer(person))).status_code == 200
