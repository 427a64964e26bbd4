"""E-mail verification and password reset, by links whose secrets exist in mails only."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine, event

NEW = "another lighthouse 8"


async def verification(world: Any, person: Any) -> str:
    """The secret of a link that verifies the address."""
    answer = await world.public.post("/email-verifications", headers=world.bearer(person))
    assert answer.status_code == 202
    return str(await world.mailed(person, "verify_email"))


async def reset(world: Any, person: Any) -> str:
    """The secret of a link that resets the password."""
    answer = await world.public.post("/password-resets", json={"email": person["email"]})
    assert answer.status_code == 202
    return str(await world.mailed(person, "reset_password"))


async def confirm(world: Any, token: str) -> Any:
    return await world.use("/email-verifications/confirm", token)


async def set_new(world: Any, token: str, password: str = NEW) -> Any:
    return await world.use("/password-resets/confirm", token, password=password)


async def test_an_address_is_verified_by_the_link_once(world: Any) -> None:
    person = await world.sign_up()
    token = await verification(world, person)
    assert await confirm(world, token) == (204, None)
    assert (await world.public.get("/me", headers=world.bearer(person))).json()["email_verified"] is True
    event = (await world.events(person["id"]))[-1]
    assert event == {"type": "users.user.email_verified.v1", "version": 2, "data": {"user_id": person["id"]}}
    assert await confirm(world, token) == (400, "invalid_link")


async def test_a_verified_address_is_not_verified_again(world: Any) -> None:
    person = await world.sign_up()
    assert await confirm(world, await verification(world, person)) == (204, None)
    assert (await world.public.post("/email-verifications", headers=world.bearer(person))).status_code == 202
    assert len(await world.links(person)) == 1


async def test_a_verification_can_be_requested_by_the_person_only(world: Any) -> None:
    assert (await world.public.post("/email-verifications")).status_code == 401


async def test_a_password_is_reset_by_the_link_once_and_all_sessions_are_to_end(world: Any) -> None:
    person = await world.sign_up()
    token = await reset(world, person)
    assert await set_new(world, token) == (204, None)
    assert (await world.log_in(person["email"])).status_code == 401
    assert (await world.log_in(person["email"], NEW)).status_code == 200
    changed, verified = (await world.events(person["id"]))[-2:]
    data = {"user_id": person["id"], "except_session_id": None, "by": "reset"}
    assert changed == {"type": "users.user.password_changed.v1", "version": 2, "data": data}
    assert verified == {"type": "users.user.email_verified.v1", "version": 3, "data": {"user_id": person["id"]}}
    assert (await world.public.get("/me", headers=world.bearer(person))).json()["email_verified"] is True
    assert await set_new(world, token, "a third lighthouse 9") == (400, "invalid_link")


async def test_a_reset_request_gets_the_same_response_whether_or_not_the_account_exists(world: Any) -> None:
    person, gone = await world.sign_up(), await world.sign_up()
    await world.execute("UPDATE users SET status = 'deactivated' WHERE id = :id", id=gone["id"])
    for email in (person["email"].upper(), gone["email"], "nobody@example.com"):
        answer = await world.public.post("/password-resets", json={"email": email})
        assert (answer.status_code, answer.text) == (202, "")
    assert len(await world.links(person)) == 1
    assert await world.links(gone) == []


async def test_asking_for_a_reset_does_the_same_for_any_address(world: Any) -> None:
    person, gone = await world.sign_up(), await world.sign_up()
    await world.execute("UPDATE users SET status = 'deactivated' WHERE id = :id", id=gone["id"])
    await world.execute("DELETE FROM login_buckets")  # the welcomes'
    run: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        run.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        for number, email in enumerate((person["email"], gone["email"], "nobody@example.com"), 1):
            await world.public.post("/password-resets", json={"email": email})
            assert len(run) == 2 * number  # one statement each, after one that counts the network's requests
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert len(set(run)) == 2
    [counted] = await world.rows("SELECT count(*) AS writes FROM login_buckets")
    assert counted["writes"] == 3 + 1  # one write per commit, with or without an account; the network's is one row


async def test_link_mails_to_one_address_are_limited(world: Any) -> None:
    person = await world.sign_up()
    for _ in range(8):
        assert (await world.public.post("/password-resets", json={"email": person["email"]})).status_code == 202
    assert len(await world.links(person)) == 5
    await world.time_passes(720)
    await world.public.post("/password-resets", json={"email": person["email"].upper()})
    assert len(await world.links(person)) == 6
    headers = world.bearer(person)
    for _ in range(8):
        assert (await world.public.post("/email-verifications", headers=headers)).status_code == 202
    assert len(await world.links(person)) == 11
    await world.time_passes(720)
    await world.public.post("/email-verifications", headers=headers)
    assert len(await world.links(person)) == 12


async def test_accounts_that_change_to_an_address_repeatedly_cannot_flood_its_mailbox(world: Any) -> None:
    """With one account or with several: a cancelled change deletes the links, but not the count."""
    statuses, sent = [], 0
    for _ in range(2):
        person = await world.sign_up()
        for address in ("victim@example.com", person["email"]) * 4:
            answer = await world.request_email(person, address)
            statuses.append(answer.status_code)
            expected = address if address != person["email"] and answer.is_success else None
            assert not answer.is_success or answer.json()["pending_email"] == expected
        sent += len(await world.links(person, "confirm_email"))
    assert (statuses.count(429), sent) == (3, 5)
    assert answer.json().get("code", "address_changed_too_often") == "address_changed_too_often"


async def test_reset_requests_from_strangers_do_not_use_up_those_of_the_owners_networks(world: Any) -> None:
    person, home = await world.sign_up(), "198.51.100.7"
    assert (await world.log_in(person["email"], network=home)).status_code == 200

    async def mails_requested_from(address: str) -> int:
        before = len(await world.links(person))
        for _ in range(8):
            headers = {"X-Forwarded-For": f"203.0.113.99, {address}"}
            answer = await world.public.post("/password-resets", json={"email": person["email"]}, headers=headers)
            assert (answer.status_code, answer.text) == (202, "")
        return len(await world.links(person)) - before

    assert await mails_requested_from("192.0.2.66") == 5
    assert await mails_requested_from("192.0.2.67") == 0
    assert await mails_requested_from(home) == 5


async def test_the_mails_writer_gets_what_the_mail_needs(world: Any) -> None:
    person = await world.sign_up(name="Ann")
    await world.public.post("/password-resets", json={"email": person["email"]})
    [link_id] = await world.links(person)
    issued = (await world.issue(link_id)).json()
    assert len(issued.pop("token")) >= 43
    assert issued.pop("expires_at").endswith("Z")
    assert issued == {
        "purpose": "reset_password", "user_id": person["id"], "name": "Ann", "email": person["email"]
    }  # fmt: skip


async def test_a_mail_that_was_written_twice_has_two_secrets_and_one_use(world: Any) -> None:
    person = await world.sign_up()
    first = await reset(world, person)
    second = (await world.issue((await world.links(person))[0])).json()["token"]
    assert first != second
    assert await set_new(world, first) == (204, None)
    assert await set_new(world, second) == (400, "invalid_link")


async def test_one_link_used_ten_times_at_once_works_once(world: Any) -> None:
    person = await world.sign_up()
    token = await verification(world, person)
    outcomes = await asyncio.gather(*(confirm(world, token) for _ in range(10)))
    assert sorted(status for status, _ in outcomes) == [204] + [400] * 9
    person = await world.sign_up()
    token = await reset(world, person)
    outcomes = await asyncio.gather(*(set_new(world, token, f"lighthouse number {n}") for n in range(5)))
    assert sorted(status for status, _ in outcomes) == [204] + [400] * 4


async def test_a_secret_is_good_for_its_purpose_only(world: Any) -> None:
    person = await world.sign_up()
    assert await confirm(world, await reset(world, person)) == (400, "invalid_link")
    assert await set_new(world, await verification(world, person)) == (400, "invalid_link")


async def test_a_secret_expires(world: Any) -> None:
    person = await world.sign_up()
    token = await reset(world, person)
    await world.execute("UPDATE secret_link_tokens SET expires_at = now()")
    assert await set_new(world, token) == (400, "invalid_link")


@pytest.mark.parametrize("token", ["x", "A" * 43, "' OR true --"])
async def test_an_unknown_secret_is_400(world: Any, token: str) -> None:
    assert await confirm(world, token) == (400, "invalid_link")
    assert await set_new(world, token) == (400, "invalid_link")


async def test_a_refused_password_leaves_the_link_valid(world: Any) -> None:
    person = await world.sign_up()
    token = await reset(world, person)
    assert await set_new(world, token, "password1234") == (422, "weak_password")
    assert await set_new(world, token, person["email"] + "!") == (422, "weak_password")
    assert await set_new(world, token) == (204, None)


@pytest.mark.parametrize("change", ["email", "password", "deactivated", "erased"])
async def test_a_change_of_the_account_makes_its_open_links_void(world: Any, change: str) -> None:
    person = await world.sign_up()
    headers = world.bearer(person)
    token = await verification(world, person)
    answer = await world.public.post("/password-resets", json={"email": person["email"]})
    [reset_link] = await world.links(person, "reset_password")
    match change:
        case "email":
            await world.change_email(person, "new@example.com")
        case "password":
            body = {"current": world.password, "new": NEW}
            answer = await world.public.put("/me/password", json=body, headers=headers)
        case "deactivated":
            answer = await world.public.post(f"/users/{person['id']}/deactivate", headers=world.bearer(admin=True))
        case _:
            answer = await world.public.delete("/me", headers=headers)
    assert answer.is_success
    assert await confirm(world, token) == (400, "invalid_link")
    assert (await world.issue(reset_link)).status_code == 404


async def test_a_link_requested_long_ago_is_not_mailed_any_more(world: Any) -> None:
    person = await world.sign_up()
    await world.public.post("/password-resets", json={"email": person["email"]})
    await world.execute("UPDATE secret_links SET requested_at = requested_at - interval '25 hours'")
    assert (await world.issue((await world.links(person))[0])).status_code == 404
    assert (await world.issue(str(uuid4()))).status_code == 404


async def test_secrets_are_issued_to_services_with_the_scope_only(world: Any) -> None:
    person = await world.sign_up()
    await world.public.post("/password-resets", json={"email": person["email"]})
    path = f"/internal/secret-links/{(await world.links(person))[0]}"
    other = {"Authorization": f"Bearer {world.tokens.mint_service('auth', scope='credentials:verify')}"}
    assert (await world.internal.post(path)).status_code == 401
    assert (await world.internal.post(path, headers=other)).status_code == 403
    assert (await world.public.post(path, headers=other)).status_code == 404


async def test_no_secret_is_in_any_table(world: Any) -> None:
    person = await world.sign_up()
    token = await reset(world, person)
    tables = [
        row["tablename"] for row in await world.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    ]
    for table in tables:
        contents = str(await world.rows(f'SELECT t::text FROM "{table}" t'))  # noqa: S608
        assert token not in contents
        assert token.encode().hex() not in contents
        assert world.password not in contents
