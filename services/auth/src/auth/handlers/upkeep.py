"""Forgets what no token and no person can be about any more. Nothing here commits."""

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import delete, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from auth.models import Client, RevokedToken, Session

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
