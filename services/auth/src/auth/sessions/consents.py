"""What people allow managed clients. Nothing here commits."""

import uuid
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from auth import queries
from auth.browser_models import Consent
from auth.errors import GrantNotFound
from auth.sessions.handlers import revoke_session
from auth.sessions.queries import consent, delete_consents, lock_sessions_with_client


async def covers(session: AsyncSession, user_id: uuid.UUID, client_id: str, scopes: Sequence[str]) -> bool:
    """Whether the person allowed the client all of these scopes."""
    found = await consent(session, user_id, client_id)
    return found is not None and set(scopes) <= set(found.scopes)


async def allow(
    session: AsyncSession, user_id: uuid.UUID, client_id: str, scopes: Sequence[str], *, now: datetime
) -> None:
    """Adds the scopes to those that the client has already. The caller has locked the person's row."""
    found = await consent(session, user_id, client_id)
    if found is None:
        session.add(Consent(user_id=user_id, client_id=client_id, scopes=list(scopes), granted_at=now))
    elif not set(scopes) <= set(found.scopes):
        found.scopes = list(dict.fromkeys((*found.scopes, *scopes)))
        found.granted_at = now


async def withdraw(session: AsyncSession, user_id: uuid.UUID, client_id: str, *, now: datetime) -> None:
    """Ends the person's sessions with the client as well. Raises `GrantNotFound`."""
    await queries.lock_subject(session, user_id)
    if not await delete_consents(session, user_id=user_id, client_id=client_id):
        raise GrantNotFound
    for family in await lock_sessions_with_client(session, user_id, client_id):
        await revoke_session(session, family, "consent_withdrawn", now)
