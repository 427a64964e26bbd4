"""Users is restored from an older backup than auth, or an event had a wrong version: users' word counts."""

from collections.abc import MutableMapping
from typing import Any

import pytest

from auth.keys.keyring import Keyring
from auth.oauth.own_tokens import OwnTokenSource
from auth.repair.subjects import repair
from auth.settings import Settings
from common.db.database import Database
from common.security.service_client import ServiceClient, http_client

from .browsing import Browser
from .conftest import PASSWORD, Auth, Happens, Person
from .test_refresh import refused
from .test_subjects import is_denied, is_good


async def test_a_sign_in_takes_users_word_where_users_has_lost_a_version(
    auth: Auth, database: Database, happens: Happens, logs: list[MutableMapping[str, Any]]
) -> None:
    """Users was restored from an older backup, or an event had a wrong version."""
    ada = auth.users.add("ada@example.com", role="user", version=1)
    old = await auth.sign_in(ada)
    await happens("role_changed", ada, version=1_000_000, role="admin")
    forged = (await auth.refresh(old["refresh_token"])).json()
    assert (await auth.principal(forged["access_token"])).roles == {"admin"}
    new = await auth.sign_in(ada)
    assert (await auth.principal(new["access_token"])).roles == {"user"}
    for tokens, is_void in ((forged, True), (new, False)):
        assert await is_good(auth, tokens) is not is_void
        assert await is_denied(auth, database, tokens) is is_void
    [line] = [line for line in logs if line["event"].startswith("users contradicts what auth knew of a person")]
    assert (line["known_version"], line["version"], line["user_id"]) == (1_000_000, 1, str(ada.user_id))
    late = (await auth.refresh(forged["refresh_token"])).json()
    assert (await auth.principal(late["access_token"])).roles == {"user"}
    await happens("deactivated", ada, version=2)  # later than all of these, as users counts
    for tokens in (late, new):
        assert not await is_good(auth, tokens)
        assert await refused(auth, tokens["refresh_token"])


async def test_a_sign_in_takes_users_word_where_the_version_is_the_same_and_the_status_is_not(
    auth: Auth, happens: Happens
) -> None:
    """Users was restored from a backup before the deactivation, and the person changed there since."""
    ada = auth.users.add("ada@example.com", version=1)
    await auth.sign_in(ada)
    await happens("deactivated", ada, version=2)
    ada.version = 2
    assert await is_good(auth, await auth.sign_in(ada))


async def test_a_code_of_the_second_factor_is_enough_where_users_has_lost_a_version(
    auth: Auth, happens: Happens
) -> None:
    """The code is used up when users has verified it, so it cannot be verified once more."""

    async def use_up(person: Person) -> None:
        person.code = f"{int(person.code or 0) + 1:06}"

    ada, bob = (auth.users.add(f"{name}@example.com", version=3, code="000001") for name in ("ada", "bob"))
    auth.users.on_verified = use_up
    for person in (ada, bob):
        await auth.sign_in(person, otp="000001")
        await happens("role_changed", person, version=5, role="staff")
    auth.users.requests.clear()
    tokens = await auth.sign_in(ada, otp="000002")
    assert (await auth.principal(tokens["access_token"])).roles == {"user"}
    browser = Browser(auth)
    page = await browser.sign_in(await browser.open("/sign-in"), bob)
    assert "You are signed in" in (await browser.submit(page, otp="000002")).text
    assert len(auth.users.requests) == 3


async def test_a_change_between_the_code_and_the_sign_in_is_no_wrong_code(auth: Auth, happens: Happens) -> None:
    ada = auth.users.add("ada@example.com", version=1, code="000001")

    async def change(person: Person) -> None:
        person.code = "000002"
        if person.version == 1:
            person.version, person.role = 2, "staff"
            await happens("role_changed", person, version=2, role="staff")

    auth.users.on_verified = change
    form = {"grant_type": "password", "username": ada.email, "password": PASSWORD}
    answer = await auth.token(**form, otp="000001")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    tokens = await auth.sign_in(ada, otp="000002")
    assert (await auth.principal(tokens["access_token"])).roles == {"staff"}


@pytest.mark.parametrize("changes", [1, 2, 3])
async def test_a_deactivation_in_flight_is_not_undone_however_often_the_person_changes(
    auth: Auth, happens: Happens, changes: int
) -> None:
    """Users verifies each time, and each time auth has processed the next event before it starts the session."""
    ada = auth.users.add("ada@example.com")

    async def change(person: Person) -> None:
        verified = person.version
        person.version += 1
        if verified < changes:
            await happens("role_changed", person, version=person.version, role="staff")
        else:
            auth.users.people.pop(person.email, None)
            await happens("deactivated", person, version=person.version)

    auth.users.on_verified = change
    answer = await auth.token(grant_type="password", username=ada.email, password=PASSWORD)
    assert answer.status_code in (400, 503)
    assert "access_token" not in answer.json()
    assert len(auth.users.requests) == min(changes + 1, 3)
    again = await auth.token(grant_type="password", username=ada.email, password=PASSWORD)
    assert again.json()["error"] == "invalid_grant"


async def test_the_command_repairs_those_who_do_not_sign_in(
    auth: Auth, database: Database, settings: Settings, happens: Happens
) -> None:
    names = ("ada", "bob", "cyd", "dan", "eve")
    ada, bob, cyd, dan, eve = (auth.users.add(f"{name}@example.com") for name in names)
    tokens = {person.email: await auth.sign_in(person) for person in (ada, bob, cyd, dan, eve)}
    await happens("role_changed", ada, version=9, role="admin")
    await happens("role_changed", bob, version=9, role="user")
    bob.status = "deactivated"
    cyd.version = 2  # its event is on the way
    del auth.users.people[dan.email]
    expected = [
        (ada, 9, 1, "users' word taken"),
        (bob, 9, 1, "users' word taken"),
        (dan, 1, None, "none"),
    ]

    async def repaired(*, end_missing: bool = False, dry_run: bool = False) -> list[tuple[Any, ...]]:
        async with http_client(auth.users.transport) as http:
            keyring = Keyring(database, settings)
            await keyring.reload()
            users = ServiceClient(http, settings.users_url, OwnTokenSource(keyring, settings))
            found = [
                each
                async for each in repair(database, users, actor="operator:x", end_missing=end_missing, dry_run=dry_run)
            ]
        return sorted((str(each.user_id), each.known_version, each.version, each.action) for each in found)

    listed = sorted((str(person.user_id), known, version, action) for person, known, version, action in expected)
    assert await repaired(dry_run=True) == listed
    assert await repaired() == listed
    assert await repaired() == [(str(dan.user_id), 1, None, "none")]
    assert await repaired(end_missing=True) == [(str(dan.user_id), 1, None, "sessions ended")]
    assert await repaired() == []
    fresh = (await auth.refresh(tokens[ada.email]["refresh_token"])).json()
    assert (await auth.principal(fresh["access_token"])).roles == {"user"}
    assert [await refused(auth, tokens[person.email]["refresh_token"]) for person in (bob, cyd, dan, eve)] == [
        True,
        False,
        True,
        False,
    ]
