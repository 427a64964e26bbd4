"""What people do with their own accounts."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Final
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from common.messaging.outbox import record
from users import queries
from users.credentials import throttle
from users.credentials.throttle import Bucket
from users.errors import AddressChangedTooOften, EmailTaken, LastAdmin, WrongPassword
from users.events import UserErased, UserPasswordChanged, UserRegistered, UserUpdated
from users.models import ProfileField, User

# Who takes an address need not be its owner, who is mailed in both cases: by whatever number of accounts, not for ever.
_WELCOMES: Final = Bucket("welcomes to", capacity=5, interval=720)
_DEPARTURES: Final = Bucket("departures from", capacity=5, interval=720)


async def require_free_email(session: AsyncSession, email: str) -> None:
    """Raises `EmailTaken`. Cheap, and before the hashing; the unique index decides in the end."""
    if await queries.is_email_taken(session, email):
        raise EmailTaken


async def sign_up(
    session: AsyncSession, *, name: str, email: str, age: int | None, password_hash: str, send_welcome: bool
) -> User:
    """A new account with the role `user`. It is welcomed, unless its address was a few times this hour.

    Raises `EmailTaken`.
    """
    user = User.register(name=name, email=email, age=age, password_hash=password_hash)
    session.add(user)
    with _unique_email():
        await session.flush()
    send_welcome = send_welcome and await throttle.has_room(session, _WELCOMES, user.email)
    registered = UserRegistered(
        user_id=user.id, name=user.name, email=user.email, role=user.role, send_welcome=send_welcome
    )
    await record(session, registered, subject=user.id, version=user.version)
    return user


async def change_profile(session: AsyncSession, user_id: UUID, changes: Mapping[ProfileField, Any]) -> User:
    """Changes what is given and different. Raises `NotFound`, `EmailTaken`, `AddressChangedTooOften`.

    Open links are void once the address is another: their mails went, or would go, to somebody else.
    """
    user = await queries.lock_user(session, user_id)
    before = user.email
    changed = user.change_profile(changes)
    if not changed:
        return user
    with _unique_email():
        await session.flush()
    if "email" in changed:
        if not await throttle.has_room(session, _DEPARTURES, before):
            raise AddressChangedTooOften(_DEPARTURES.interval)
        await queries.void_links(session, user.id)
    updated = UserUpdated(user_id=user.id, name=user.name, email=user.email, changed=changed)
    await record(session, updated, subject=user.id, version=user.version)
    return user


async def set_password(
    session: AsyncSession, user_id: UUID, password_hash: str, *, old_hash: str, except_session_id: str | None
) -> None:
    """Sets the password that was checked and hashed outside. Every session but one is to end.

    Raises `NotFound`, and `WrongPassword` where another change of it came first.
    """
    user = await queries.lock_user_with_password(session, user_id)
    if user.password_hash != old_hash:
        raise WrongPassword("The password was changed meanwhile.")
    await replace_password(session, user, password_hash, except_session_id=except_session_id)


async def replace_password(
    session: AsyncSession, user: User, password_hash: str, *, except_session_id: str | None
) -> None:
    """The part that a change and a reset share; `user` is locked."""
    user.set_password(password_hash)
    await queries.void_links(session, user.id)
    changed = UserPasswordChanged(user_id=user.id, except_session_id=except_session_id)
    await record(session, changed, subject=user.id, version=user.version)


async def erase(session: AsyncSession, user_id: UUID) -> None:
    """Deletes the account and everything personal about it, recorded events included.

    Raises `NotFound`, `LastAdmin`.
    """
    admins = await queries.lock_active_admins(session)
    user = await queries.lock_user(session, user_id)
    if user.is_active_admin and set(admins) <= {user.id}:
        raise LastAdmin
    await queries.scrub_events(session, user.id)
    await session.delete(user)
    await record(session, UserErased(user_id=user.id), subject=user.id, version=user.version + 1)


@contextlib.contextmanager
def _unique_email() -> Iterator[None]:
    try:
        yield
    except IntegrityError as error:
        if "uq_users_email" in str(error.orig):
            raise EmailTaken from None
        raise
