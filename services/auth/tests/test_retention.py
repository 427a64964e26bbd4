"""Rows past their retention are deleted, and no others."""

from datetime import datetime, timedelta, tzinfo

import pytest
from sqlalchemy import func, select, update

from auth.browser_models import AuthorizationCode, BrowserSession
from auth.client_models import RevokedToken
from auth.keys.keyring import Keyring
from auth.models import Session
from auth.retention import run_cleanup
from auth.settings import Settings
from common.db import database as database_module
from common.db.database import Database, new_id, utc_now

from .browsing import Browser, exchange
from .conftest import Auth
from .test_refresh import make_older
from .test_sessions import bearer, sid


async def sessions_left(database: Database) -> int:
    await run_cleanup(database)
    async with database.transaction() as session:
        return (await session.execute(select(func.count()).select_from(Session))).scalar_one()


async def test_a_session_is_deleted_a_week_after_its_end(auth: Auth, database: Database) -> None:
    tokens = await auth.sign_in(auth.users.add("ada@example.com"))
    await make_older(database, timedelta(days=20))
    assert await sessions_left(database) == 1
    await make_older(database, timedelta(days=1, seconds=1))
    assert await sessions_left(database) == 1  # nobody has signed in since, by the sessions' own times
    tokens = await auth.sign_in(auth.users.add("bea@example.com"))
    assert await sessions_left(database) == 1
    await auth.http.delete(f"/sessions/{sid(tokens)}", headers=bearer(tokens))
    assert await sessions_left(database) == 1
    async with database.transaction() as session:
        await session.execute(update(Session).values(revoked_at=utc_now() - timedelta(days=8)))
    assert await sessions_left(database) == 0


async def test_browser_sessions_and_codes_are_deleted_after_their_end(auth: Auth, database: Database) -> None:
    browser, ada = Browser(auth), auth.users.add("ada@example.com")
    page = "http://gateway.test/docs/auth/assets/oauth2-redirect.html"
    assert (await exchange(auth, await browser.code(ada, redirect_uri=page), redirect_uri=page)).status_code == 200

    async def left(table: type[BrowserSession | AuthorizationCode]) -> int | None:
        async with database.transaction() as session:
            return await session.scalar(select(func.count()).select_from(table))

    for table, column, kept in (
        (BrowserSession, BrowserSession.ends_at, timedelta(hours=1)),
        (AuthorizationCode, AuthorizationCode.expires_at, timedelta(days=7)),
    ):
        for ago, expected in ((kept - timedelta(minutes=1), 1), (kept + timedelta(minutes=1), 0)):
            async with database.transaction() as session:
                await session.execute(update(table).values({column: utc_now() - ago}))
            await run_cleanup(database)
            assert await left(table) == expected


async def test_a_run_deletes_a_days_sessions_by_the_servers_clock(
    auth: Auth, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        await auth.sign_in(auth.users.add(f"{number}@example.com"))
        await make_older(database, timedelta(days=10))
    await auth.sign_in(auth.users.add("newest@example.com"))
    monkeypatch.setattr(database_module, "datetime", Ahead)
    assert [await sessions_left(database) for _ in range(3)] == [3, 3, 3]


async def test_a_host_with_a_wrong_clock_withdraws_no_signing_key(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyring = Keyring(database, settings)
    await keyring.reload()
    before = keyring.key_set.body
    monkeypatch.setattr(database_module, "datetime", Ahead)
    await keyring.reload()
    assert keyring.key_set.body == before


class Ahead(datetime):
    """The clock of a host that is 200 days ahead."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> "Ahead":
        return super().now(tz) + timedelta(days=200)


async def test_a_revoked_client_token_is_deleted_after_it_expired(database: Database) -> None:
    now = utc_now()
    async with database.transaction() as session:
        for age in (timedelta(minutes=30), timedelta(hours=2)):
            session.add(RevokedToken(sid=new_id(), client_id="orders", revoked_at=now - age))
    assert await run_cleanup(database) == 1
