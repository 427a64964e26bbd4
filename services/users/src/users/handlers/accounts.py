"""What people do with their own accounts."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from common.messaging.outbox import record
from users import queries
from users.credentials import throttle
from users.credentials.throttle import LeakyBucket
from users.errors import EmailTaken, WrongPassword
from users.events import UserEmailVerified, UserErased, UserPasswordChanged, UserRegistered, UserUpdated
from users.handlers.administration import lock_account
from users.models import ProfileField, User

# Anyone can sign up with an address they do not own, and the owner gets the mails. The limit holds for an address,
# whatever the number of accounts that use it one after the other.
_WELCOMES: Final = LeakyBucket("welcomes to", capacity=5, interval=720)


async def try_address(session: AsyncSession, email: str, *, network: str, limit: int) -> bool:
    """Whether a new account may have the address. Counts the question in any case: commit it before you respond.

    A cheap check before the hashing; the unique index makes the final decision. Raises `TooManyAddresses`.
    """
    await throttle.count_address(session, network, limit=limit)
    return not await queries.is_email_taken(session, email)


async def try_new_address(session: AsyncSession, user_id: UUID, email: str, *, network: str, limit: int) -> bool:
    """The same for an existing account, which may always keep its address. Raises `NotFound`, `TooManyAddresses`."""
    user = await queries.user(session, user_id)
    if user.email == email:
        return True
    await throttle.count_address(session, network, limit=limit)
    return not await queries.is_email_taken(session, email, by_other_than=user_id)


async def sign_up(
    session: AsyncSession, *, name: str, email: str, age: int | None, password_hash: str, send_welcome: bool
) -> User:
    """Creates an account with the role `user`.

    The event requests a welcome mail if `send_welcome`, unless the address has got a few within the hour.

    Raises `EmailTaken`.
    """
    user = User.register(name=name, email=email, age=age, password_hash=password_hash)
    session.add(user)
    with unique_email():
        await session.flush()
    send_welcome = send_welcome and await throttle.count_unless_full(session, _WELCOMES, user.email)
    registered = UserRegistered(
        user_id=user.id, name=user.name, email=user.email, role=user.role, send_welcome=send_welcome
    )
    await record(session, registered, subject=user.id, version=user.version)
    return user


async def change_profile(session: AsyncSession, user_id: UUID, changes: Mapping[ProfileField, Any]) -> User:
    """Sets the given fields. Raises `NotFound`. A new address is `users.handlers.email_changes`' matter."""
    user = await queries.lock_user(session, user_id)
    changed = user.change_profile(changes)
    if changed:
        updated = UserUpdated(user_id=user.id, name=user.name, email=user.email, changed=changed)
        await record(session, updated, subject=user.id, version=user.version)
    return user


async def mark_verified(session: AsyncSession, user: User) -> None:
    """The person has received a mail at the account's address. The caller has locked `user`."""
    if user.verify_email():
        await record(session, UserEmailVerified(user_id=user.id), subject=user.id, version=user.version)


async def set_password(
    session: AsyncSession, user_id: UUID, password_hash: str, *, old_hash: str, except_session_id: str | None
) -> None:
    """Sets a password whose hash the caller made. The event ends all sessions except `except_session_id`.

    Raises `NotFound`, and `WrongPassword` if the password is no longer that of `old_hash`.
    """
    user = await queries.lock_user_with_password(session, user_id)
    if user.password_hash != old_hash:
        raise WrongPassword("The password was changed in the meantime.")
    await replace_password(session, user, password_hash, by="change", except_session_id=except_session_id)


async def replace_password(
    session: AsyncSession,
    user: User,
    password_hash: str,
    *,
    by: Literal["change", "reset"],
    except_session_id: str | None = None,
) -> None:
    """Shared by a change and a reset. The caller has locked `user`."""
    user.set_password(password_hash)
    await queries.void_links(session, user)
    changed = UserPasswordChanged(user_id=user.id, except_session_id=except_session_id, by=by)
    await record(session, changed, subject=user.id, version=user.version)


async def erase(session: AsyncSession, user_id: UUID) -> None:
    """Deletes the account and all its personal data, also from recorded events. Raises `NotFound`, `LastAdmin`."""
    user = await lock_account(session, user_id, stays_admin=False)
    await queries.scrub_events(session, user.id)
    await session.delete(user)
    await record(session, UserErased(user_id=user.id), subject=user.id, version=user.version + 1)


@contextlib.contextmanager
def unique_email() -> Iterator[None]:
    """Turns the violation of the unique index into `EmailTaken`."""
    try:
        yield
    except IntegrityError as error:
        if "uq_users_email" in str(error.orig):
            raise EmailTaken from None
        raise
