"""OAuth clients managed by administrators. Nothing here commits."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncSession

from auth import queries
from auth.clients.secrets import new_secret, secret_hash
from auth.errors import ClientHasKeys, ClientNotFound, PublicClient
from auth.events import AuditRecorded, Reason, SubjectRevoked
from auth.models import Client
from auth.sessions.handlers import revoke_session
from auth.sessions.queries import delete_consents, lock_sessions_of_client
from common.db.database import new_id
from common.messaging.audit import record_act
from common.messaging.outbox import record

_OVERLAP: Final = timedelta(hours=24)
"""How long a replaced secret stays good."""


async def register_client(
    session: AsyncSession,
    *,
    name: str,
    grant_types: Iterable[str],
    scopes: Iterable[str],
    redirect_uris: Iterable[str],
    post_logout_redirect_uris: Iterable[str],
    is_public: bool,
    jwks: dict[str, Any] | None,
    actor: str,
    now: datetime,
) -> tuple[Client, str | None]:
    """Adds a client. Returns it with its secret, of which only the hash is stored.

    Raises `InvalidRegistration`.
    """
    secret = new_secret()
    client = Client(
        id=f"client-{new_id().hex}",  # not a UUID: a token's `sub` shows whether it is a client's or a person's
        name=name,
        grant_types=_distinct(grant_types),
        scopes=_distinct(scopes),
        redirect_uris=_distinct(redirect_uris),
        post_logout_redirect_uris=_distinct(post_logout_redirect_uris),
        is_public=is_public,
        jwks=jwks,
        secret_hash=secret_hash(secret),
        created_at=now,
    )
    client.check_grant_types()
    session.add(client)
    await _record_act(session, "client.registered", client, actor=actor, detail=" ".join(client.scopes))
    return client, None if is_public or jwks is not None else secret


async def change_client(session: AsyncSession, client_id: str, changes: Mapping[str, Any], *, actor: str) -> Client:
    """Sets the named attributes. Raises `ClientNotFound`, `InvalidRegistration`."""
    client = await _lock(session, client_id)
    for name, value in changes.items():
        setattr(client, name, _distinct(value) if isinstance(value, list) else value)
    client.check_grant_types()
    await _record_act(session, "client.changed", client, actor=actor, detail=" ".join(sorted(changes)))
    return client


async def change_client_secret(
    session: AsyncSession, client_id: str, *, revoke_previous: bool, actor: str, now: datetime
) -> tuple[Client, str]:
    """Replaces the secret. The one before stays good for a day, so that the client can change over without a gap.

    With `revoke_previous` it is void at once, and so are the client's tokens, those of people included.

    Raises `ClientNotFound`, `PublicClient`, `ClientHasKeys`.
    """
    client = await _lock(session, client_id)
    if client.is_public:
        raise PublicClient
    if client.jwks is not None:
        raise ClientHasKeys
    secret = new_secret()
    await _record_act(session, "client.secret_changed", client, actor=actor)
    if revoke_previous:
        client.previous_secret_hash = client.previous_secret_until = None
        for family in await lock_sessions_of_client(session, client_id):
            await revoke_session(session, family, "client_secret_changed", now)
        await _revoke_tokens(session, client, "client_secret_changed", now)
    else:
        client.previous_secret_hash, client.previous_secret_until = client.secret_hash, now + _OVERLAP
    client.secret_hash = secret_hash(secret)
    return client, secret


async def delete_client(session: AsyncSession, client_id: str, *, actor: str, now: datetime) -> None:
    """Deletes the client, ends people's sessions with it, and voids its tokens. Raises `ClientNotFound`."""
    client = await _lock(session, client_id)
    client.deleted_at = now
    await _record_act(session, "client.deleted", client, actor=actor)
    for family in await lock_sessions_of_client(session, client_id):
        await revoke_session(session, family, "client_deleted", now)
    await delete_consents(session, client_id=client_id)
    await _revoke_tokens(session, client, "client_deleted", now)


async def _record_act(
    session: AsyncSession, action: str, client: Client, *, actor: str, detail: str | None = None
) -> None:
    await record_act(session, action, client.id, actor=actor, detail=detail, event=AuditRecorded)


def _distinct(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


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
