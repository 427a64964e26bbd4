"""Every SELECT of users, and the writes that bypass the ORM's objects."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Select, and_, bindparam, delete, exists, func, literal, select, union_all, update
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import undefer

from common.db.expired_rows import expired_before
from common.errors import NotFound
from common.messaging.event_log import event_log
from common.messaging.outbox import outbox
from common.messaging.unsendable import unsendable_events
from users.models import (
    ADMIN,
    KnownNetwork,
    LinkPurpose,
    Role,
    SecretLink,
    SecretLinkToken,
    Status,
    TotpAuthenticator,
    User,
)


async def user(session: AsyncSession, user_id: UUID) -> User:
    """Raises `NotFound`."""
    return await _one(session, select(User).where(User.id == user_id))


async def user_by_email(session: AsyncSession, email: str) -> User:
    """Raises `NotFound`."""
    return await _one(session, select(User).where(User.email == email))


async def user_with_password(session: AsyncSession, user_id: UUID) -> User:
    """The account with its password's hash. Raises `NotFound`."""
    return await _one(session, select(User).where(User.id == user_id).options(undefer(User.password_hash)))


async def users_by_id(session: AsyncSession, user_ids: Sequence[UUID]) -> Sequence[User]:
    return (await session.scalars(select(User).where(User.id.in_(user_ids)))).all()


async def lock_user(session: AsyncSession, user_id: UUID) -> User:
    """The account, its row locked: only the caller can change it and record its events. Raises `NotFound`."""
    return await _one(session, select(User).where(User.id == user_id).with_for_update())


async def lock_user_with_password(session: AsyncSession, user_id: UUID) -> User:
    """The account with its password's hash, its row locked. Raises `NotFound`."""
    statement = select(User).where(User.id == user_id).options(undefer(User.password_hash))
    return await _one(session, statement.with_for_update())


async def _one(session: AsyncSession, statement: Select[User]) -> User:
    found = await session.scalar(statement, execution_options={"populate_existing": True})
    if found is None:
        raise NotFound("There is no such user.")
    return found


async def lock_active_admins(session: AsyncSession) -> Sequence[UUID]:
    """The ids of all active admins, their rows locked in the order of ids, so that two callers cannot deadlock.

    A change that could remove an admin calls this before it locks any other account.
    """
    statement = select(User.id).where(User.role == ADMIN, User.status == "active").order_by(User.id)
    return (await session.scalars(statement.with_for_update())).all()


async def is_email_taken(session: AsyncSession, email: str, *, by_other_than: UUID | None = None) -> bool:
    """Whether another account has the address, or left it so recently that its owner may still take it back."""
    other = by_other_than or UUID(int=0)
    has = select(literal(1)).where(User.email == email, User.id != other)
    may_take_back = select(literal(1)).where(
        SecretLink.email == email,
        SecretLink.purpose == "revert_email",
        SecretLink.used_at.is_(None),
        SecretLink.user_id != other,
    )
    return await session.scalar(union_all(has, may_take_back).limit(1)) is not None


async def users(
    session: AsyncSession,
    *,
    email: str | None,
    role: Role | None,
    status: Status | None,
    after: UUID | None,
    limit: int,
) -> Sequence[User]:
    """Newest first: ids sort by time."""
    statement = select(User).order_by(User.id.desc()).limit(limit)
    if email is not None:
        statement = statement.where(User.email == email)
    if role is not None:
        statement = statement.where(User.role == role)
    if status is not None:
        statement = statement.where(User.status == status)
    if after is not None:
        statement = statement.where(User.id < after)
    return (await session.scalars(statement)).all()


_USERS: Final = User.__table__.c
_KNOWN: Final = KnownNetwork.__table__.c
_TOTP: Final = TotpAuthenticator.__table__.c


@dataclass(frozen=True, slots=True)
class LoginCandidate:
    """The account with a sign-in's address. `last_login_at` is that of sign-ins from the same network."""

    user_id: UUID
    role: Role
    status: Status
    version: int
    password_hash: str
    has_second_factor: bool
    last_login_at: datetime | None


_CANDIDATE: Final = (
    select(
        _USERS.id,
        _USERS.role,
        _USERS.status,
        _USERS.version,
        _USERS.password_hash,
        exists().where(_TOTP.user_id == _USERS.id, _TOTP.confirmed_at.is_not(None)),
        _KNOWN.last_login_at,
    )
    .outerjoin_from(
        User.__table__,
        KnownNetwork.__table__,
        and_(_KNOWN.user_id == _USERS.id, _KNOWN.network == bindparam("network")),
    )
    .where(_USERS.email == bindparam("email"))
)


async def login_candidate(session: AsyncSession, email: str, network: str) -> LoginCandidate | None:
    row = (await session.execute(_CANDIDATE, {"email": email, "network": network})).one_or_none()
    return LoginCandidate(*row) if row is not None else None


async def record_known_network(session: AsyncSession, user_id: UUID, network: str) -> None:
    """Does nothing for an account that was erased in the meantime."""
    row = (
        select(User.id, literal(network), func.now())
        .where(User.id == user_id)
        .with_for_update(read=True, key_share=True)
    )
    statement = insert(KnownNetwork).from_select(["user_id", "network", "last_login_at"], row)
    await session.execute(
        statement.on_conflict_do_update(
            index_elements=[KnownNetwork.user_id, KnownNetwork.network], set_={"last_login_at": func.now()}
        )
    )


async def replace_hash(session: AsyncSession, user_id: UUID, *, old: str, new: str) -> None:
    """Stores the hash of the same password with other parameters. This is no change of the account, so no event."""
    await session.execute(update(User).where(User.id == user_id, User.password_hash == old).values(password_hash=new))


async def void_links(session: AsyncSession, user: User) -> None:
    """Makes the account's unused links void, also those that are in mails, and with them a pending change of address.

    Those that take an address back stay: they are for whoever lost the account to somebody who can change the rest.
    """
    user.pending_email = None
    await session.execute(
        delete(SecretLink).where(
            SecretLink.user_id == user.id, SecretLink.used_at.is_(None), SecretLink.purpose != "revert_email"
        )
    )


async def delete_unused_links(
    session: AsyncSession, user_id: UUID, purpose: LinkPurpose, *, since: datetime | None = None
) -> None:
    """Deletes the account's unused links of one purpose: all, or those requested at `since` or later."""
    statement = delete(SecretLink).where(
        SecretLink.user_id == user_id, SecretLink.used_at.is_(None), SecretLink.purpose == purpose
    )
    await session.execute(statement if since is None else statement.where(SecretLink.requested_at >= since))


async def has_unused_link(session: AsyncSession, user_id: UUID, purpose: LinkPurpose, *, within: timedelta) -> bool:
    """Whether the account has a link that was not used, and was requested no longer ago than `within`."""
    found = exists().where(
        SecretLink.user_id == user_id,
        SecretLink.used_at.is_(None),
        SecretLink.purpose == purpose,
        SecretLink.requested_at > func.now() - within,
    )
    return bool(await session.scalar(select(found)))


async def lock_issuable_link(session: AsyncSession, link_id: UUID, *, within: timedelta) -> tuple[SecretLink, User]:
    """A link whose mail may still be written, locked, and its owner. Raises `NotFound`."""
    row = (
        await session.execute(
            select(SecretLink, User)
            .join(User, User.id == SecretLink.user_id)
            .where(
                SecretLink.id == link_id,
                SecretLink.used_at.is_(None),
                SecretLink.requested_at > func.now() - within,
                User.status == "active",
            )
            .with_for_update(of=SecretLink)
        )
    ).one_or_none()
    if row is None:
        raise NotFound("There is no such link to issue.")
    return row.SecretLink, row.User


async def link_owner(session: AsyncSession, digest: bytes, purpose: LinkPurpose) -> User | None:
    """The owner of the valid link with this secret."""
    found: User | None = await session.scalar(
        select(User)
        .join(SecretLink, SecretLink.user_id == User.id)
        .join(SecretLinkToken, SecretLinkToken.link_id == SecretLink.id)
        .where(*_is_valid(digest, purpose), User.status == "active")
    )
    return found


async def lock_valid_link(session: AsyncSession, digest: bytes, purpose: LinkPurpose) -> SecretLink | None:
    """The link, locked. The caller has locked the account before."""
    found: SecretLink | None = await session.scalar(
        select(SecretLink)
        .join(SecretLinkToken, SecretLinkToken.link_id == SecretLink.id)
        .where(*_is_valid(digest, purpose))
        .with_for_update(of=SecretLink),
        execution_options={"populate_existing": True},
    )
    return found


def _is_valid(digest: bytes, purpose: LinkPurpose) -> tuple[Any, ...]:
    return (
        SecretLinkToken.digest == digest,
        SecretLinkToken.expires_at > func.now(),
        SecretLink.used_at.is_(None),
        SecretLink.purpose == purpose,
    )


_NETWORK_RETENTION: Final = timedelta(days=180)
"""From the last sign-in."""
_LINK_RETENTION: Final = timedelta(days=9)
"""From the request. A link that takes an address back lives 7 days from its mail, which may be a day late."""


async def delete_expired(session: AsyncSession) -> None:
    """Deletes known networks and links past their retention, a day's rows of each at most."""
    newest = select(func.max(KnownNetwork.last_login_at))
    for column, kept in ((KnownNetwork.last_login_at, _NETWORK_RETENTION), (SecretLink.requested_at, _LINK_RETENTION)):
        before = await expired_before(session, kept, oldest=select(func.min(column)), newest=newest)
        if before is not None:
            await session.execute(delete(column.class_).where(column < before))


_PLACEHOLDERS: Final = {"name": "Erased", "email": "erased@waybill.invalid"}


async def scrub_events(session: AsyncSession, user_id: UUID) -> None:
    """Replaces name and address in an account's recorded events, which stay valid by their schema.

    The outbox first: if the relay is moving a row, this waits for it and then finds the row in the event log.
    """
    for table in (outbox, unsendable_events, event_log):
        for field, placeholder in _PLACEHOLDERS.items():
            await session.execute(
                update(table)
                .where(table.c.subject == str(user_id), table.c.data.has_key(field))
                .values(data=table.c.data.concat(literal({field: placeholder}, JSONB)))
            )
