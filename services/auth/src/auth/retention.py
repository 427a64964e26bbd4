"""Deletes rows that no token refers to any more. Every API replica tries; none waits for another."""

import asyncio
from datetime import datetime, timedelta
from typing import Final

import structlog
from sqlalchemy import delete, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from auth.models import Client, RevokedToken, Session
from common.db.database import Database, utc_now

log = structlog.get_logger(__name__)

_EVERY: Final = 600.0
_BATCH: Final = 1_000
_ENDED_SESSIONS_KEPT: Final = timedelta(days=7)
_REVOCATIONS_KEPT: Final = timedelta(hours=1)
"""Longer than any access token lives."""


async def forget_ended(session: AsyncSession, now: datetime) -> int:
    """Removes a bounded batch of ended sessions, of revoked client tokens and of deleted clients; returns how many."""
    ended = or_(
        Session.revoked_at < now - _ENDED_SESSIONS_KEPT,
        (Session.revoked_at.is_(None)) & (Session.idle_until < now - _ENDED_SESSIONS_KEPT),
    )
    statements = (
        delete(Session).where(Session.id.in_(select(Session.id).where(ended).limit(_BATCH))).returning(Session.id),
        delete(RevokedToken).where(RevokedToken.revoked_at < now - _REVOCATIONS_KEPT).returning(RevokedToken.sid),
        delete(Client).where(Client.deleted_at < now - _REVOCATIONS_KEPT).returning(Client.id),
    )
    return sum([len((await session.execute(statement)).all()) for statement in statements])


async def keep_house(database: Database) -> None:
    """Until cancelled."""
    while True:
        await asyncio.sleep(_EVERY)
        try:
            async with database.transaction() as session:
                forgotten = await forget_ended(session, utc_now())
        except Exception as error:  # noqa: BLE001 - whatever it is, the next round may succeed
            log.warning("ended sessions not removed", error=type(error).__name__)
        else:
            log.info("ended sessions removed", count=forgotten)
