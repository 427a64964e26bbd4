"""Sessions: signing in, refreshing, signing out. Nothing here commits."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from sqlalchemy.ext.asyncio import AsyncSession

from auth import queries
from auth.errors import SessionNotFound
from auth.events import Reason, SessionRevoked, SessionStarted, SubjectRevoked, TokenReuseDetected
from auth.models import Limits, Reuse, Session, Subject, SubjectStatus
from auth.tokens.refresh import PresentedToken
from common.db.database import new_id
from common.messaging.outbox import record
from common.security.tokens import Principal

_DEVICE_LENGTH: Final = 200


@dataclass(frozen=True, slots=True)
class VerifiedPerson:
    """What users answered to a right password, as of its `version` of the person."""

    user_id: uuid.UUID
    role: str
    version: int


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A session with the token that refreshes it next, and what its access tokens say."""

    session: Session
    session_version: int
    role: str
    refresh_token: PresentedToken


@dataclass(frozen=True, slots=True)
class Refused:
    """An outcome, not an error: what it changed must be committed."""

    reason: Literal["stale", "inactive", "unknown", "other_client", "ended", "reuse"]


async def start(
    session: AsyncSession,
    person: VerifiedPerson,
    *,
    client_id: str,
    scopes: Sequence[str],
    resources: Sequence[str],
    device: str,
    secret: bytes,
    limits: Limits,
    now: datetime,
) -> SignedIn | Refused:
    """Signs a person in. Refused as stale when users has changed the person since it answered."""
    subject, _ = await queries.lock_or_add_subject(
        session, person.user_id, version=person.version, status=SubjectStatus.ACTIVE, role=person.role
    )
    # Users lets nobody in but who is active; of a reactivation its answer may tell before the event does.
    status = SubjectStatus.ACTIVE if person.version > subject.version else None
    if not subject.learn(person.version, status=status, role=person.role):
        return Refused("stale")
    if subject.status != SubjectStatus.ACTIVE:
        # The same version, yet not active: only an answer that was wrong when it was given.
        return Refused("inactive")
    family = Session(
        id=new_id(),
        user_id=person.user_id,
        client_id=client_id,
        scopes=list(scopes),
        resources=list(resources),
        device=describe_device(device),
        subject_version=person.version,
        place=1,
        version=1,
    )
    first = family.begin(secret, now, limits)
    session.add(family)
    started = SessionStarted(session_id=family.id, user_id=family.user_id, client_id=client_id)
    await record(session, started, subject=family.id, version=1, occurred_at=now)
    return SignedIn(family, subject.session_version, subject.role, first)


async def refresh(
    session: AsyncSession,
    token: PresentedToken,
    *,
    client_id: str,
    secret: bytes,
    limits: Limits,
    now: datetime,
) -> SignedIn | Refused:
    """Rotates a session's refresh token. A used one revokes the session (RFC 9700 §4.14.2), unless it is the newest
    token's parent and its answer may have been lost.
    """
    found = await queries.lock_family(session, token.family)
    if found is None:
        return Refused("unknown")
    subject, family = found
    if family.client_id != client_id:
        return Refused("other_client")
    if not family.is_live(now) or subject.status != SubjectStatus.ACTIVE:
        return Refused("ended")
    child = family.present(token, secret, now, limits)
    if child is None:
        return Refused("unknown")
    if isinstance(child, Reuse):
        await revoke(session, family, "token_reuse", now)
        family.version += 1
        detected = TokenReuseDetected(session_id=family.id, user_id=family.user_id, client_id=family.client_id)
        await record(session, detected, subject=family.id, version=family.version, occurred_at=now)
        return Refused("reuse")
    return SignedIn(family, subject.session_version, subject.role, child)


async def revoke(session: AsyncSession, family: Session, reason: Reason, now: datetime) -> None:
    """Ends a session, whose row the caller has locked."""
    family.revoke(reason, now)
    revoked = SessionRevoked(session_id=family.id, user_id=family.user_id, client_id=family.client_id, reason=reason)
    await record(session, revoked, subject=family.id, version=family.version, occurred_at=now)


async def end_token(session: AsyncSession, principal: Principal, *, now: datetime) -> None:
    """Ends the session of an access token. A client's own token has none: it is itself what is revoked."""
    session_id = uuid.UUID(principal.session_id or "")
    if not principal.is_client:
        family = await queries.lock_own_session(session, session_id, user_id=principal.user_id)
        if family is not None:
            await revoke(session, family, "token_revoked", now)
    elif await queries.add_revoked_token(session, session_id, client_id=principal.client_id, now=now):
        revoked = SessionRevoked(session_id=session_id, client_id=principal.client_id, reason="token_revoked")
        await record(session, revoked, subject=session_id, version=1, occurred_at=now)


async def end_own(session: AsyncSession, session_id: uuid.UUID, *, user_id: uuid.UUID, now: datetime) -> None:
    """Signs one of the person's own sessions out. Raises `SessionNotFound`."""
    family = await queries.lock_own_session(session, session_id, user_id=user_id)
    if family is None:
        raise SessionNotFound
    await revoke(session, family, "logout", now)


async def end_all(session: AsyncSession, user_id: uuid.UUID, *, now: datetime) -> None:
    """Signs the person out everywhere."""
    subject = await queries.lock_subject(session, user_id)
    if subject is not None:
        subject.session_version += 1
        await cut(session, subject, reason="logout_everywhere", ends_sessions=True, now=now)


async def cut(
    session: AsyncSession,
    subject: Subject,
    *,
    reason: Reason,
    ends_sessions: bool,
    now: datetime,
    before: int | None = None,
    spare: uuid.UUID | None = None,
) -> None:
    """Voids the access tokens of a person, whose row the caller has locked, from before now; with `ends_sessions` the
    sessions too, of those that began before users' version `before` of the person.
    """
    subject.cut(now, spare=spare)
    if ends_sessions:
        for family in await queries.lock_live_sessions(session, subject.user_id):
            if family.id != spare and (before is None or family.subject_version < before):
                family.revoke(reason, now)
    revoked = SubjectRevoked(
        subject=str(subject.user_id),
        user_id=subject.user_id,
        min_session_version=subject.min_session_version,
        except_session_id=spare,
        except_session_version=subject.spared_session_version,
        sessions_ended=ends_sessions,
        reason=reason,
    )
    await record(session, revoked, subject=subject.user_id, version=subject.event_version, occurred_at=now)


def describe_device(user_agent: str) -> str:
    """What a person recognises a session by, fit to be stored and shown."""
    return "".join(char for char in user_agent if char.isprintable())[:_DEVICE_LENGTH]
