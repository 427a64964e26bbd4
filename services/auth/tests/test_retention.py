"""Rows past their retention are deleted, and no others."""

from datetime import timedelta

from sqlalchemy import func, select, update

from auth.models import RevokedToken, Session
from auth.retention import delete_expired
from common.db.database import Database, new_id, utc_now

from .conftest import Auth
from .test_refresh import make_older
from .test_sessions import bearer, sid


async def sessions_left(database: Database) -> int:
    async with database.transaction() as session:
        await delete_expired(session, utc_now())
        return (await session.execute(select(func.count()).select_from(Session))).scalar_one()


async def test_a_session_is_deleted_a_week_after_its_end(auth: Auth, database: Database) -> None:
    tokens = await auth.sign_in(auth.users.add("ada@example.com"))
    await make_older(database, timedelta(days=20))
    assert await sessions_left(database) == 1
    await make_older(database, timedelta(days=1, seconds=1))
    assert await sessions_left(database) == 0
    tokens = await auth.sign_in(auth.users.add("ada@example.com"))
    await auth.http.delete(f"/sessions/{sid(tokens)}", headers=bearer(tokens))
    assert await sessions_left(database) == 1
    async with database.transaction() as session:
        await session.execute(update(Session).values(revoked_at=utc_now() - timedelta(days=8)))
    assert await sessions_left(database) == 0


async def test_a_revoked_client_token_is_deleted_after_it_expired(database: Database) -> None:
    now = utc_now()
    async with database.transaction() as session:
        for age in (timedelta(minutes=30), timedelta(hours=2)):
            session.add(RevokedToken(sid=new_id(), client_id="orders", revoked_at=now - age))
    async with database.transaction() as session:
        assert await delete_expired(session, now) == 1
