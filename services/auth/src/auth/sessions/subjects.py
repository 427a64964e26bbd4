"""Handlers of users' events about a person. Nothing here commits."""

import uuid
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from auth import queries
from auth.events import Reason
from auth.models import Subject, SubjectStatus
from auth.sessions.handlers import revoke_tokens
from auth.sessions.queries import delete_consents
from auth.sign_ins.queries import delete_sign_ins


async def deactivate(session: AsyncSession, user_id: uuid.UUID, *, version: int, now: datetime) -> None:
    await _revoke(session, user_id, version, "deactivated", now, status=SubjectStatus.DEACTIVATED)


async def reactivate(session: AsyncSession, user_id: uuid.UUID, *, version: int) -> None:
    subject, _ = await _lock_subject(session, user_id, version)
    subject.update_to(version, status=SubjectStatus.ACTIVE)


async def erase(session: AsyncSession, user_id: uuid.UUID, *, version: int, now: datetime) -> None:
    """Ends all sessions, and deletes the person's consents, sign-ins and the descriptions of their devices."""
    await _revoke(session, user_id, version, "erased", now, status=SubjectStatus.ERASED)
    await queries.clear_devices(session, user_id)
    await delete_consents(session, user_id=user_id)
    await delete_sign_ins(session, user_id)


async def change_role(session: AsyncSession, user_id: uuid.UUID, *, role: str, version: int, now: datetime) -> None:
    """Voids the tokens with the old role. The sessions continue, and their next tokens have the new role."""
    await _revoke(session, user_id, version, "role_changed", now, role=role, end_sessions=False)


async def change_password(
    session: AsyncSession,
    user_id: uuid.UUID,
    *,
    version: int,
    now: datetime,
    except_session: uuid.UUID | None,
) -> None:
    """Ends the sessions started with the old password, except the one in which it was changed."""
    await _revoke(session, user_id, version, "password_changed", now, except_session=except_session)


async def revert_email(session: AsyncSession, user_id: uuid.UUID, *, version: int, now: datetime) -> None:
    """Ends all sessions: somebody else may have begun them, and changed the address."""
    await _revoke(session, user_id, version, "email_reverted", now)


async def _revoke(
    session: AsyncSession,
    user_id: uuid.UUID,
    version: int,
    reason: Reason,
    now: datetime,
    *,
    status: SubjectStatus | None = None,
    role: str | None = None,
    end_sessions: bool = True,
    except_session: uuid.UUID | None = None,
) -> None:
    subject, is_new = await _lock_subject(session, user_id, version)
    is_late = version <= subject.version
    subject.update_to(version, status=status, role=role)
    # Also when a later version is known: its event may have left sessions alive that must end with this one.
    if not is_new:
        await revoke_tokens(
            session,
            subject,
            reason=reason,
            end_sessions=end_sessions,
            before_version=version,
            is_late=is_late,
            except_session=except_session,
            now=now,
        )


async def _lock_subject(session: AsyncSession, user_id: uuid.UUID, version: int) -> tuple[Subject, bool]:
    return await queries.lock_or_add_subject(
        session, user_id, version=version, status=SubjectStatus.ACTIVE, role="user"
    )
