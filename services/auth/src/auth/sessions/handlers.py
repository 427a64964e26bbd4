"""Sessions: signing in, refreshing, signing out. Nothing here commits."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from auth import queries
from auth.errors import SessionNotFound
from auth.events import AuditRecorded, Reason, SessionRevoked, SessionStarted, SubjectRevoked, TokenReuseDetected
from auth.models import Reuse, Session, SessionLimits, Subject, SubjectStatus
from auth.sessions.queries import delete_browser_sessions
from auth.sign_ins.handlers import Origin, keep_success
from auth.tokens.refresh import RefreshToken
from common.db.database import new_id
from common.messaging.audit import record_act
from common.messaging.outbox import record
from common.security.tokens import Principal

log = structlog.get_logger(__name__)

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
    nonce: str | None = None
    """Of the authorization request, for the ID token."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Returned instead of raised, because the changes that come with a refusal must be committed."""

    reason: Literal["stale", "unknown", "other_client", "ended", "reuse", "code_reuse"]
    known_version: int | None = None
    """The version of the person that auth knows, if what users verified is `stale`."""


async def start_session(
    session: AsyncSession,
    person: VerifiedPerson,
    origin: Origin,
    *,
    scopes: Sequence[str],
    resources: Sequence[str],
    known_version: int | None,
    secret: bytes,
    limits: SessionLimits,
    now: datetime,
) -> SignedIn | Refused:
    """Signs a person in, and keeps the sign-in. `known_version` is that of `admit`."""
    subject = await admit(session, person, known_version=known_version, now=now)
    if isinstance(subject, Refused):
        return subject
    family = Session(
        id=new_id(),
        user_id=person.user_id,
        client_id=origin.client_id,
        scopes=list(scopes),
        resources=list(resources),
        device=origin.device,
        subject_version=person.version,
        amr=list(person.amr),
    )
    is_new = await keep_success(session, subject, origin, session_id=family.id, now=now)
    return await begin_session(session, subject, family, is_new_device=is_new, secret=secret, limits=limits, now=now)


async def admit(
    session: AsyncSession, person: VerifiedPerson, *, known_version: int | None, now: datetime
) -> Subject | Refused:
    """The person's row, locked, if what users verified is still true.

    Refuses as `stale` what contradicts a version that auth knows: the person may have been deactivated in between.
    Verify once more then, and pass the refusal's `known_version`. If auth has learned nothing since before users was
    asked, the response is not late: users has lost that version (a restored backup) or never had it. Then users' word
    is the truth.
    """
    subject, _ = await queries.lock_or_add_subject(
        session, person.user_id, version=person.version, status=SubjectStatus.ACTIVE, role=person.role
    )
    # Users verifies only active people, so a later version means active, even before the event of a reactivation.
    active = SubjectStatus.ACTIVE
    if person.version > subject.version or (person.version == subject.version and subject.status == active):
        subject.update_to(person.version, status=active, role=person.role)
    elif known_version == subject.version:
        await go_back(session, subject, version=person.version, status=active, role=person.role, now=now)
    else:
        return Refused("stale", known_version=subject.version)
    return subject


async def go_back(
    session: AsyncSession, subject: Subject, *, version: int, status: SubjectStatus, role: str, now: datetime
) -> None:
    """Takes users' word on a person of whom auth knows a version that users does not have.

    The caller has locked the person's row. Sessions continue while the person is active; tokens with another role end.
    """
    log.warning(
        "users contradicts what auth knew of a person, its word is taken",
        user_id=str(subject.user_id),
        known_version=subject.version,
        version=version,
    )
    has_other_role = subject.role != role
    subject.go_back_to(version, status=status, role=role)
    await queries.lower_session_versions(session, subject.user_id, version)
    if status is not SubjectStatus.ACTIVE:
        reason: Reason = "erased" if status is SubjectStatus.ERASED else "deactivated"
        await revoke_tokens(session, subject, reason=reason, end_sessions=True, now=now)
    elif has_other_role:
        await revoke_tokens(session, subject, reason="role_changed", end_sessions=False, now=now)


async def begin_session(
    session: AsyncSession,
    subject: Subject,
    family: Session,
    *,
    is_new_device: bool,
    secret: bytes,
    limits: SessionLimits,
    now: datetime,
    nonce: str | None = None,
) -> SignedIn:
    """Adds a session of a person whose row the caller has locked."""
    first = family.begin(secret, now, limits)
    session.add(family)
    started = SessionStarted(
        session_id=family.id,
        user_id=family.user_id,
        client_id=family.client_id,
        is_new_device=is_new_device,
        device=family.device,
    )
    await record(session, started, subject=family.id, version=1, occurred_at=now)
    return SignedIn(family, subject.session_version, subject.role, first, nonce)


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


async def end_session(
    session: AsyncSession, session_id: uuid.UUID, *, user_id: uuid.UUID, by: uuid.UUID, now: datetime
) -> None:
    """Signs a person out of a session. `by` is that person or an administrator. Raises `SessionNotFound`."""
    family = await queries.lock_own_session(session, session_id, user_id=user_id)
    if family is None:
        raise SessionNotFound
    if by != user_id:
        await record_act(
            session, "session.ended", session_id, actor=str(by), detail=f"of {user_id}", event=AuditRecorded
        )
    await revoke_session(session, family, "logout" if by == user_id else "ended_by_admin", now)


async def end_all_sessions(session: AsyncSession, user_id: uuid.UUID, *, by: uuid.UUID, now: datetime) -> None:
    """Signs the person out everywhere. `by` is that person or an administrator."""
    if by != user_id:
        await record_act(session, "sessions.ended", user_id, actor=str(by), event=AuditRecorded)
    subject = await queries.lock_subject(session, user_id)
    if subject is not None:
        subject.session_version += 1
        reason: Reason = "logout_everywhere" if by == user_id else "ended_by_admin"
        await revoke_tokens(session, subject, reason=reason, end_sessions=True, now=now)


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

    With `end_sessions` the sessions end as well, those of browsers included: all, or those started before users'
    version `before_version` of the person. `except_session` keeps its tokens and does not end, unlike its browser's.
    `is_late`: a sign-in has already begun the person's session version, so that tokens of the ending sessions may have
    it too; each session is then revoked by itself.
    """
    subject.revoke_tokens(now, except_session=except_session)
    if end_sessions:
        await delete_browser_sessions(session, subject.user_id, before_version=before_version)
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
