"""OAuth clients that administrators manage. Nothing here commits."""

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from auth import queries
from auth.clients.secrets import new_secret, secret_hash
from auth.errors import ClientNotFound
from auth.events import Reason, SubjectRevoked
from auth.models import Client
from common.db.database import new_id
from common.messaging.outbox import record


async def register(
    session: AsyncSession, *, name: str, grant_types: Iterable[str], scopes: Iterable[str], now: datetime
) -> tuple[Client, str]:
    """A new client and its secret, of which only the hash is kept."""
    secret = new_secret()
    client = Client(
        id=f"client-{new_id().hex}",  # never a person's id: a token's `sub` tells the two apart
        name=name,
        grant_types=list(dict.fromkeys(grant_types)),
        scopes=list(dict.fromkeys(scopes)),
        secret_hash=secret_hash(secret),
        created_at=now,
        session_version=1,
        version=0,
    )
    session.add(client)
    return client, secret


async def change_secret(session: AsyncSession, client_id: str, *, now: datetime) -> tuple[Client, str]:
    """Replaces the secret and voids the client's tokens. Raises `ClientNotFound`."""
    client = await _lock(session, client_id)
    secret = new_secret()
    client.secret_hash = secret_hash(secret)
    await _cut(session, client, "client_secret_changed", now)
    return client, secret


async def delete(session: AsyncSession, client_id: str, *, now: datetime) -> None:
    """Removes the client and voids its tokens. Raises `ClientNotFound`."""
    client = await _lock(session, client_id)
    client.deleted_at = now
    await _cut(session, client, "client_deleted", now)


async def _lock(session: AsyncSession, client_id: str) -> Client:
    client = await queries.lock_client(session, client_id)
    if client is None:
        raise ClientNotFound
    return client


async def _cut(session: AsyncSession, client: Client, reason: Reason, now: datetime) -> None:
    client.session_version += 1
    client.version += 1
    client.revoked_at = now
    revoked = SubjectRevoked(
        subject=client.id, min_session_version=client.session_version, sessions_ended=True, reason=reason
    )
    await record(session, revoked, subject=client.id, version=client.version, occurred_at=now)
