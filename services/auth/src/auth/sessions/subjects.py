"""What auth does when users says that a person has changed. Nothing here commits."""

import uuid
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from auth import queries
from auth.events import Reason
from auth.models import Subject, SubjectStatus
from auth.sessions.handlers import cut


async def deactivated(session: AsyncSession, user_id: uuid.UUID, *, version: int, now: datetime) -> None:
    await _revoke(session, user_id, version, "deactivated", now, status=SubjectStatus.DEACTIVATED)


async def reactivated(session: AsyncSession, user_id: uuid.UUID, *, version: int) -> None:
    subject, _ = await _subject(session, user_id, version)
    subject.learn(version, status=SubjectStatus.ACTIVE)


async def erased(session: AsyncSession, user_id: uuid.UUID, *, version: int, now: datetime) -> None:
    """Ends everything and forgets which devices the person used."""
    await _revoke(session, user_id, version, "erased", now, status=SubjectStatus.ERASED)
    await queries.forget_devices(session, user_id)


async def role_changed(session: AsyncSession, user_id: uuid.UUID, *, role: str, version: int, now: datetime) -> None:
    """Voids the tokens that name the old role; the sessions go on, and their next tokens name the new one."""
    await _revoke(session, user_id, version, "role_changed", now, role=role, ends_sessions=False)


async def password_changed(
    session: AsyncSession,
    user_id: uuid.UUID,
    *,
    version: int,
    now: datetime,
    except_session_id: uuid.UUID | None,
) -> None:
    """Ends the sessions begun with the old password, but the one that changed it."""
    await _revoke(session, user_id, version, "password_changed", now, spare=except_session_id)


async def _revoke(
    session: AsyncSession,
    user_id: uuid.UUID,
    version: int,
    reason: Reason,
    now: datetime,
    *,
    status: SubjectStatus | None = None,
    role: str | None = None,
    ends_sessions: bool = True,
    spare: uuid.UUID | None = None,
) -> None:
    subject, is_new = await _subject(session, user_id, version)
    subject.learn(version, status=status, role=role)
    # Even when something later is known already: sessions from before this change may have outlived that.
    if not is_new:
        await cut(session, subject, reason=reason, ends_sessions=ends_sessions, before=version, spare=spare, now=now)


async def _subject(session: AsyncSession, user_id: uuid.UUID, version: int) -> tuple[Subject, bool]:
    return await queries.lock_or_add_subject(
        session, user_id, version=version, status=SubjectStatus.ACTIVE, role="user"
    )
