"""OAuth clients managed by administrators. Nothing here commits."""

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from auth import queries
from auth.clients.secrets import new_secret, secret_hash
from auth.errors import ClientNotFound
from auth.events import AuditRecorded, Reason, SubjectRevoked
from auth.models import Client
from common.db.database import new_id
from common.messaging.audit import record_act
from common.messaging.outbox import record


async def register_client(
    session: AsyncSession, *, name: str, grant_types: Iterable[str], scopes: Iterable[str], actor: str, now: datetime
) -> tuple[Client, str]:
    """Adds a client. Returns it with its secret, of which only the hash is stored."""
    secret = new_secret()
    client = Client(
        id=f"client-{new_id().hex}",  # not a UUID: a token's `sub` shows whether it is a client's or a person's
        name=name,
        grant_types=list(dict.fromkeys(grant_types)),
        scopes=list(dict.fromkeys(scopes)),
        secret_hash=secret_hash(secret),
        created_at=now,
    )
    session.add(client)
    await _record_act(session, "client.registered", client, actor=actor, detail=" ".join(client.scopes))
    return client, secret


async def change_client_secret(
    session: AsyncSession, client_id: str, *, actor: str, now: datetime
) -> tuple[Client, str]:
    """Replaces the secret and voids the client's tokens. Raises `ClientNotFound`."""
    client = await _lock(session, client_id)
    secret = new_secret()
    client.secret_hash = secret_hash(secret)
    await _revoke_tokens(session, client, "client_secret_changed", now)
    await _record_act(session, "client.secret_changed", client, actor=actor)
    return client, secret


async def delete_client(session: AsyncSession, client_id: str, *, actor: str, now: datetime) -> None:
    """Deletes the client and voids its tokens. Raises `ClientNotFound`."""
    client = await _lock(session, client_id)
    client.deleted_at = now
    await _revoke_tokens(session, client, "client_deleted", now)
    await _record_act(session, "client.deleted", client, actor=actor)


async def _record_act(
    session: AsyncSession, action: str, client: Client, *, actor: str, detail: str | None = None
) -> None:
    await record_act(session, action, client.id, actor=actor, detail=detail, event=AuditRecorded)


async def _lock(session: AsyncSession, client_id: str) -> Client:
    client = await queries.client(session, client_id, lock=True)
    if client is None:
        raise ClientNotFound
    return client


async def _revoke_tokens(session: AsyncSession, client: Client, reason: Reason, now: datetime) -> None:
    client.session_version += 1
    client.version += 1
    client.revoked_at = now
    revoked = SubjectRevoked(
        subject=client.id, min_session_version=client.session_version, sessions_ended=True, reason=reason
    )
    await record(session, revoked, subject=client.id, version=client.version, occurred_at=now)
