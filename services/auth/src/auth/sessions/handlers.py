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
from auth.models import Reuse, Session, SessionLimits, Subject, SubjectStatus
from auth.tokens.refresh import RefreshToken
from common.db.database import new_id
from common.messaging.outbox import record
from common.security.tokens import Principal

_DEVICE_LENGTH: Final = 200


@dataclass(frozen=True, slots=True)
class VerifiedPerson:
    """A person whose credentials users has verified. `version` is that of users' aggregate at that time.

    `amr` lists how they authenticated (RFC 8176): `pwd`, with a second factor also `otp` and `mfa`.
    """

    user_id: uuid.UUID
    role: str
    version: int
    amr: tuple[str, ...] = ("pwd",)
    has_second_factor: bool = False


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A session, its new refresh token, and what its next access token needs."""

    session: Session
    session_version: int
    role: str
    refresh_token: RefreshToken


@dataclass(frozen=True, slots=True)
class Refused:
    """Returned instead of raised, because the changes that come with a refusal must be committed."""

    reason: Literal["stale", "inactive", "unknown", "other_client", "ended", "reuse"]


async def start_session(
    session: AsyncSession,
    person: VerifiedPerson,
    *,
    client_id: str,
    scopes: Sequence[str],
    resources: Sequence[str],
    device: str,
    secret: bytes,
    limits: SessionLimits,
    now: datetime,
) -> SignedIn | Refused:
    """Signs a person in. Refuses as `stale` when auth knows a later version of the person than users verified."""
    subject, _ = await queries.lock_or_add_subject(
        session, person.user_id, version=person.version, status=SubjectStatus.ACTIVE, role=person.role
    )
    # Users verifies only active people, so a later version means active, even before the event of a reactivation.
    status = SubjectStatus.ACTIVE if person.version > subject.version else None
    if not subject.update_to(person.version, status=status, role=person.role):
        return Refused("stale")
    if subject.status != SubjectStatus.ACTIVE:
        # An event of the same version says otherwise, so users' response was wrong when it was sent.
        return Refused("inactive")
    family = Session(
        id=new_id(),
        user_id=person.user_id,
        client_id=client_id,
        scopes=list(scopes),
        resources=list(resources),
        device=describe_device(device),
        subject_version=person.version,
    )
    first = family.begin(secret, now, limits)
    session.add(family)
    started = SessionStarted(session_id=family.id, user_id=family.user_id, client_id=client_id)
    await record(session, started, subject=family.id, version=1, occurred_at=now)
    return SignedIn(family, subject.session_version, subject.role, first)


async def refresh_session(
    session: AsyncSession,
    token: RefreshToken,
    *,
    client_id: str,
    secret: bytes,
    limits: SessionLimits,
    now: datetime,
) -> SignedIn | Refused:
    """Rotates a session's refresh token.

    A used token revokes the session (RFC 9700 §4.14.2), unless it is the newest token's parent and the client may have
    lost the response.
    """
    found = await queries.lock_family(session, token.family)
    if found is None:
        return Refused("unknown")
    subject, family = found
    if family.client_id != client_id:
        return Refused("other_client")
    if not family.is_live(now) or subject.status != SubjectStatus.ACTIVE:
        return Refused("ended")
    child = family.rotate(token, secret, now, limits)
    if child is None:
        return Refused("unknown")
    if isinstance(child, Reuse):
        await revoke_session(session, family, "token_reuse", now)
        family.version += 1
        detected = TokenReuseDetected(session_id=family.id, user_id=family.user_id, client_id=family.client_id)
        await record(session, detected, subject=family.id, version=family.version, occurred_at=now)
        return Refused("reuse")
    return SignedIn(family, subject.session_version, subject.role, child)


async def revoke_session(session: AsyncSession, family: Session, reason: Reason, now: datetime) -> None:
    """Ends a session whose row the caller has locked."""
    family.revoke(reason, now)
    revoked = SessionRevoked(session_id=family.id, user_id=family.user_id, client_id=family.client_id, reason=reason)
    await record(session, revoked, subject=family.id, version=family.version, occurred_at=now)


async def revoke_access_token(session: AsyncSession, principal: Principal, *, now: datetime) -> None:
    """Ends the session of a person's access token. A client's own token has no session: only the token is revoked."""
    session_id = uuid.UUID(principal.session_id or "")
    if not principal.is_client:
        family = await queries.lock_own_session(session, session_id, user_id=principal.user_id)
        if family is not None:
            await revoke_session(session, family, "token_revoked", now)
    elif await queries.add_revoked_token(session, session_id, client_id=principal.client_id, now=now):
        revoked = SessionRevoked(session_id=session_id, client_id=principal.client_id, reason="token_revoked")
        await record(session, revoked, subject=session_id, version=1, occurred_at=now)


async def end_session(session: AsyncSession, session_id: uuid.UUID, *, user_id: uuid.UUID, now: datetime) -> None:
    """Signs a person out of one of their own sessions. Raises `SessionNotFound`."""
    family = await queries.lock_own_session(session, session_id, user_id=user_id)
    if family is None:
        raise SessionNotFound
    await revoke_session(session, family, "logout", now)


async def end_all_sessions(session: AsyncSession, user_id: uuid.UUID, *, now: datetime) -> None:
    """Signs the person out everywhere."""
    subject = await queries.lock_subject(session, user_id)
    if subject is not None:
        subject.session_version += 1
        await revoke_tokens(session, subject, reason="logout_everywhere", end_sessions=True, now=now)


async def revoke_tokens(
    session: AsyncSession,
    subject: Subject,
    *,
    reason: Reason,
    end_sessions: bool,
    now: datetime,
    before_version: int | None = None,
    is_late: bool = False,
    except_session: uuid.UUID | None = None,
) -> None:
    """Voids a person's access tokens of earlier session versions. The caller has locked the person's row.

    With `end_sessions` the sessions end as well: all, or those started before users' version `before_version` of the
    person. `except_session` keeps its tokens and does not end. `is_late`: a sign-in has already begun the person's
    session version, so that tokens of the ending sessions may have it too; each session is then revoked by itself.
    """
    subject.revoke_tokens(now, except_session=except_session)
    if end_sessions:
        for family in await queries.lock_unrevoked_sessions(session, subject.user_id):
            started_before = before_version is None or family.subject_version < before_version
            if family.id == except_session or not started_before:
                continue
            if is_late:
                await revoke_session(session, family, reason, now)
            else:
                family.revoke(reason, now)
    revoked = SubjectRevoked(
        subject=str(subject.user_id),
        user_id=subject.user_id,
        min_session_version=subject.min_session_version,
        except_session_id=except_session,
        except_session_version=subject.excepted_session_version,
        sessions_ended=end_sessions,
        reason=reason,
    )
    await record(session, revoked, subject=subject.user_id, version=subject.event_version, occurred_at=now)


def describe_device(user_agent: str) -> str:
    """The printable part of a User-Agent header, at most 200 characters, by which a person recognises a session."""
    return "".join(char for char in user_agent if char.isprintable())[:_DEVICE_LENGTH]
