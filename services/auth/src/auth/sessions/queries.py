"""SQL of the authorization code flow. Lock the person before a code, a consent or a session, to avoid deadlocks."""

import uuid
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Row, Select, delete, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from auth.browser_models import AuthorizationCode, BrowserSession, Consent
from auth.models import Client, Session, Subject, SubjectStatus


async def browser_session(session: AsyncSession, cookie_hash: bytes, *, now: datetime) -> BrowserSession | None:
    """The live browser session with this cookie, of a person whose account is active."""
    found: BrowserSession | None = await session.scalar(
        select(BrowserSession)
        .join(Subject, Subject.user_id == BrowserSession.user_id)
        .where(
            BrowserSession.cookie_hash == cookie_hash,
            BrowserSession.ends_at > now,
            Subject.status == SubjectStatus.ACTIVE,
        )
    )
    return found


async def browser_session_by_id(session: AsyncSession, browser_id: uuid.UUID) -> BrowserSession | None:
    return await session.get(BrowserSession, browser_id)


async def delete_browser_session(session: AsyncSession, browser_id: uuid.UUID) -> None:
    await session.execute(delete(BrowserSession).where(BrowserSession.id == browser_id))


async def delete_browser_sessions(session: AsyncSession, user_id: uuid.UUID, *, before_version: int | None) -> None:
    """Ends a person's browser sessions: all, or those begun before users' version `before_version` of the person."""
    statement = delete(BrowserSession).where(BrowserSession.user_id == user_id)
    if before_version is not None:
        statement = statement.where(BrowserSession.subject_version < before_version)
    await session.execute(statement)


async def authorization_code(
    session: AsyncSession, code_hash: bytes, *, lock: bool = False
) -> AuthorizationCode | None:
    query = select(AuthorizationCode).where(AuthorizationCode.code_hash == code_hash)
    if lock:
        query = query.with_for_update().execution_options(populate_existing=True)
    found: AuthorizationCode | None = await session.scalar(query)
    return found


async def consent(session: AsyncSession, user_id: uuid.UUID, client_id: str) -> Consent | None:
    return await session.get(Consent, (user_id, client_id))


async def consents(
    session: AsyncSession, user_id: uuid.UUID, *, after: tuple[datetime, str] | None, limit: int
) -> Sequence[Row[str, str, list[str], datetime]]:
    """The person's consents, newest first: `client_id`, `name`, `scopes`, `granted_at`."""
    query = (
        select(Consent.client_id, Client.name, Consent.scopes, Consent.granted_at)
        .join(Client, Client.id == Consent.client_id)
        .where(Consent.user_id == user_id, Client.deleted_at.is_(None))
    )
    if after is not None:
        query = query.where(tuple_(Consent.granted_at, Consent.client_id) < after)
    query = query.order_by(Consent.granted_at.desc(), Consent.client_id.desc()).limit(limit)
    return (await session.execute(query)).all()


async def delete_consents(
    session: AsyncSession, *, user_id: uuid.UUID | None = None, client_id: str | None = None
) -> bool:
    """Deletes the consents of a person, of a client, or of a person for a client. Returns whether there were any."""
    statement = delete(Consent)
    if user_id is not None:
        statement = statement.where(Consent.user_id == user_id)
    if client_id is not None:
        statement = statement.where(Consent.client_id == client_id)
    return bool((await session.scalars(statement.returning(Consent.client_id))).all())


async def lock_sessions_of_browser(
    session: AsyncSession, browser_id: uuid.UUID, user_id: uuid.UUID
) -> Sequence[Session]:
    """The unrevoked sessions that were authorized in a browser session, locked in a fixed order."""
    return await _lock(
        session, select(Session).where(Session.user_id == user_id, Session.browser_session_id == browser_id)
    )


async def move_sessions(session: AsyncSession, replaced: BrowserSession, browser_id: uuid.UUID) -> None:
    """Makes the person's sessions those of another browser session. The caller has locked the person's row."""
    await session.execute(
        update(Session)
        .where(
            Session.user_id == replaced.user_id,
            Session.browser_session_id == replaced.id,
            Session.revoked_at.is_(None),
        )
        .values(browser_session_id=browser_id)
    )


async def lock_sessions_with_client(session: AsyncSession, user_id: uuid.UUID, client_id: str) -> Sequence[Session]:
    """A person's unrevoked sessions with a client, locked in a fixed order."""
    return await _lock(session, select(Session).where(Session.user_id == user_id, Session.client_id == client_id))


async def lock_sessions_of_client(session: AsyncSession, client_id: str) -> Sequence[Session]:
    """The unrevoked sessions of all people with a managed client, locked in a fixed order.

    They are found by the consents, as there is no index over the clients of sessions.
    """
    people = select(Consent.user_id).where(Consent.client_id == client_id)
    return await _lock(session, select(Session).where(Session.user_id.in_(people), Session.client_id == client_id))


async def _lock(session: AsyncSession, query: Select[Session]) -> Sequence[Session]:
    query = query.where(Session.revoked_at.is_(None)).order_by(Session.created_at, Session.id).with_for_update()
    return (await session.scalars(query)).all()
