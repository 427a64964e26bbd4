"""Auth's SQL, except that of `auth.retention`."""

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import bindparam, case, exists, select, tuple_, union_all, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from auth.browser_models import BrowserSession
from auth.client_models import RevokedToken, UsedAssertion
from auth.models import Client, Session, SigningKey, Subject, SubjectStatus
from common.messaging.event_log import event_log
from common.messaging.outbox import outbox
from common.messaging.unsendable import unsendable_events

# Built once, because every sign-in and every refresh runs it.
_LOCK_SUBJECT: Final = select(Subject).where(Subject.user_id == bindparam("user_id")).with_for_update()


async def revoked_at(session: AsyncSession, user_id: uuid.UUID) -> datetime | None:
    """When all of a person's tokens were voided last."""
    found: datetime | None = await session.scalar(select(Subject.revoked_at).where(Subject.user_id == user_id))
    return found


async def lock_subject(session: AsyncSession, user_id: uuid.UUID) -> Subject | None:
    """The person's row, locked. Lock it before the person's sessions, always in this order, to avoid deadlocks."""
    return await session.scalar(_LOCK_SUBJECT, {"user_id": user_id})


async def lock_or_add_subject(
    session: AsyncSession, user_id: uuid.UUID, *, version: int, status: str, role: str
) -> tuple[Subject, bool]:
    """The person's row, locked, and whether this call inserted it."""
    subject = await lock_subject(session, user_id)
    if subject is not None:
        return subject, False
    added = await session.scalar(
        insert(Subject)
        .values(user_id=user_id, version=version, status=status, role=role)
        .on_conflict_do_nothing()
        .returning(Subject)
    )
    if added is not None:
        return added, True
    return (await session.execute(_LOCK_SUBJECT, {"user_id": user_id})).scalar_one(), False


async def subjects(session: AsyncSession, *, after: uuid.UUID | None, limit: int) -> Sequence[Subject]:
    """People who are not erased, by id."""
    query = select(Subject).where(Subject.status != SubjectStatus.ERASED).order_by(Subject.user_id).limit(limit)
    return (await session.scalars(query if after is None else query.where(Subject.user_id > after))).all()


async def lock_family(session: AsyncSession, session_id: uuid.UUID) -> tuple[Subject, Session] | None:
    """A session and its person, both locked, the person first."""
    owner = select(Session.user_id).where(Session.id == session_id).scalar_subquery()
    subject = await session.scalar(select(Subject).where(Subject.user_id == owner).with_for_update())
    family = await session.scalar(select(Session).where(Session.id == session_id).with_for_update())
    return None if subject is None or family is None else (subject, family)


async def family(session: AsyncSession, session_id: uuid.UUID) -> tuple[Subject, Session] | None:
    """A session and its person, not locked."""
    query = select(Subject, Session).join(Session, Session.user_id == Subject.user_id).where(Session.id == session_id)
    row = (await session.execute(query)).one_or_none()
    return None if row is None else (row[0], row[1])


async def lock_own_session(session: AsyncSession, session_id: uuid.UUID, *, user_id: uuid.UUID) -> Session | None:
    """The session, locked, if it belongs to this person and is not revoked."""
    return await session.scalar(
        select(Session)
        .where(Session.id == session_id, Session.user_id == user_id, Session.revoked_at.is_(None))
        .with_for_update()
    )


async def lock_unrevoked_sessions(session: AsyncSession, user_id: uuid.UUID) -> Sequence[Session]:
    """All unrevoked sessions of a person, locked in a fixed order to avoid deadlocks."""
    found = await session.scalars(
        select(Session)
        .where(Session.user_id == user_id, Session.revoked_at.is_(None))
        .order_by(Session.created_at, Session.id)
        .with_for_update()
    )
    return found.all()


async def live_sessions(
    session: AsyncSession,
    user_id: uuid.UUID,
    *,
    now: datetime,
    after: tuple[datetime, uuid.UUID] | None,
    limit: int,
) -> Sequence[Session]:
    """The person's sessions that are neither revoked nor expired, newest first."""
    query = select(Session).where(Session.user_id == user_id, Session.revoked_at.is_(None), Session.idle_until > now)
    if after is not None:
        query = query.where(tuple_(Session.created_at, Session.id) < after)
    query = query.order_by(Session.created_at.desc(), Session.id.desc()).limit(limit)
    return (await session.scalars(query)).all()


async def is_token_revoked(
    session: AsyncSession, session_id: uuid.UUID, *, subject_id: str, session_version: int, of_client: bool
) -> bool:
    """Whether an unexpired access token with these claims (`sid`, `sub`, `sv`) has been revoked.

    `of_client`: the token is a client's own, not a person's.
    """
    if of_client:
        revoked = exists().where(RevokedToken.sid == session_id)
        outdated = exists().where(Client.id == subject_id, Client.session_version > session_version)
    else:
        user_id = uuid.UUID(subject_id)
        revoked = exists().where(Session.id == session_id, Session.revoked_at.is_not(None))
        outdated = exists().where(
            Subject.user_id == user_id,
            case(
                (Subject.excepted_session_id == session_id, Subject.excepted_session_version),
                else_=Subject.min_session_version,
            )
            > session_version,
        )
    return bool(await session.scalar(select(revoked | outdated)))


async def revoked_session_ids(session: AsyncSession, *, since: datetime) -> Sequence[uuid.UUID]:
    """The `sid` of each session, and of each access token of a client, revoked after `since`."""
    query = union_all(
        select(Session.id).where(Session.revoked_at > since),
        select(RevokedToken.sid).where(RevokedToken.revoked_at > since),
    )
    return (await session.execute(query)).scalars().all()


async def revoked_subjects(session: AsyncSession, *, since: datetime) -> Sequence[Subject]:
    return (await session.scalars(select(Subject).where(Subject.revoked_at > since))).all()


async def revoked_clients(session: AsyncSession, *, since: datetime) -> Sequence[Client]:
    """Clients, deleted ones included, whose tokens were revoked after `since`."""
    return (await session.scalars(select(Client).where(Client.revoked_at > since))).all()


async def client(session: AsyncSession, client_id: str, *, lock: bool = False) -> Client | None:
    query = select(Client).where(Client.id == client_id, Client.deleted_at.is_(None))
    return await session.scalar(query.with_for_update() if lock else query)


async def clients(session: AsyncSession, *, after: tuple[datetime, str] | None, limit: int) -> Sequence[Client]:
    """Clients that are not deleted, newest first."""
    query = select(Client).where(Client.deleted_at.is_(None))
    if after is not None:
        query = query.where(tuple_(Client.created_at, Client.id) < after)
    return (await session.scalars(query.order_by(Client.created_at.desc(), Client.id.desc()).limit(limit))).all()


async def signing_keys(session: AsyncSession) -> Sequence[SigningKey]:
    """All keys, oldest first."""
    return (await session.scalars(select(SigningKey).order_by(SigningKey.created_at, SigningKey.kid))).all()


async def lower_session_versions(session: AsyncSession, user_id: uuid.UUID, version: int) -> None:
    """Makes a person's sessions begin at `version` at the latest, so that events of later versions end them."""
    later = update(Session).where(Session.user_id == user_id, Session.subject_version > version)
    await session.execute(later.values(subject_version=version))
    browsers = update(BrowserSession).where(BrowserSession.user_id == user_id, BrowserSession.subject_version > version)
    await session.execute(browsers.values(subject_version=version))


async def clear_devices(session: AsyncSession, user_id: uuid.UUID) -> None:
    """Removes the device descriptions from a person's sessions and from the events about them.

    The outbox first: if the relay is moving a row, this waits for it and then finds the row in the event log.
    """
    await session.execute(update(Session).where(Session.user_id == user_id).values(device=""))
    ids = (await session.scalars(select(Session.id).where(Session.user_id == user_id))).all()
    for table in (outbox, unsendable_events, event_log):
        of_sessions = table.c.subject.in_([str(session_id) for session_id in ids])
        described = update(table).where(of_sessions, table.c.data.has_key("device"))
        await session.execute(described.values(data=table.c.data.op("-")("device")))


async def use_assertion(session: AsyncSession, digest: bytes, expires_at: datetime) -> bool:
    """Whether this is the first use of a client's assertion."""
    used = insert(UsedAssertion).values(digest=digest, expires_at=expires_at).on_conflict_do_nothing()
    return (await session.scalar(used.returning(UsedAssertion.digest))) is not None


async def add_revoked_token(session: AsyncSession, sid: uuid.UUID, *, client_id: str, now: datetime) -> bool:
    """Revokes a client's access token. Returns False if it was revoked before."""
    statement = insert(RevokedToken).values(sid=sid, client_id=client_id, revoked_at=now)
    added = await session.execute(statement.on_conflict_do_nothing().returning(RevokedToken.sid))
    return added.scalar() is not None
