"""A new e-mail address: requested with the password, confirmed at the new address, and undone at the old one.

Whoever receives the account's mail can reset its password. So a stolen session must not change the address, and an
owner whose password was stolen as well can take the address back.
"""

from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from common.messaging.outbox import record
from users import queries
from users.credentials import throttle
from users.credentials.throttle import LeakyBucket
from users.errors import AddressChangedTooOften, EmailTaken, WrongPassword
from users.events import UserEmailReverted, UserUpdated
from users.handlers import authenticators, links
from users.handlers.accounts import mark_verified, unique_email
from users.models import User

_DEPARTURES: Final = LeakyBucket("departures from", capacity=5, interval=720)
"""Mails about a change to the address before it. Anyone can sign up with an address they do not own, and leave it."""


async def request_email_change(session: AsyncSession, user_id: UUID, email: str, *, old_hash: str) -> User:
    """Mails a link that confirms the new address to it, and one that undoes the change to the present address.

    The last request counts; the present address cancels it. The same request mails again once its link is too old.

    Raises `NotFound`, `AddressChangedTooOften`, and `WrongPassword` if the password is no longer that of `old_hash`.
    """
    user = await queries.lock_user_with_password(session, user_id)
    if user.password_hash != old_hash:
        raise WrongPassword("The password was changed in the meantime.")
    if user.pending_email == email and await queries.has_unused_link(
        session, user.id, "confirm_email", within=links.CONFIRMED_WITHIN
    ):
        return user
    await queries.delete_unused_links(session, user.id, "confirm_email")
    user.pending_email = None if user.email == email else email
    if user.pending_email is not None:
        if not await throttle.count_unless_full(session, _DEPARTURES, user.email):
            raise AddressChangedTooOften(_DEPARTURES.interval)
        if not await links.count_mail(session, user, email):
            raise AddressChangedTooOften(_DEPARTURES.interval)
        await links.request_link(session, user, "revert_email", email=user.email)
        await links.request_link(session, user, "confirm_email", email=email)
    return user


async def confirm_email_change(session: AsyncSession, token: str) -> None:
    """Uses the link: its address becomes the account's, and is verified. Links in earlier mails are void.

    Raises `InvalidLink`, `EmailTaken`.
    """
    user, link = await links.use_link(session, token, "confirm_email")
    await _set_email(session, user, link.email or "")


async def revert_email_change(session: AsyncSession, token: str) -> None:
    """Uses the link: the account has its address again, whatever happened to it since, and all sessions end.

    What may be somebody else's goes: an authenticator that is younger than the request for the change, and the links
    that undo later changes. Raises `InvalidLink`, `EmailTaken`.
    """
    user, link = await links.use_link(session, token, "revert_email")
    await queries.delete_unused_links(session, user.id, "revert_email", since=link.requested_at)
    await authenticators.remove(session, user, since=link.requested_at)
    await _set_email(session, user, link.email or "")
    user.count_change()
    reverted = UserEmailReverted(user_id=user.id, email=user.email)
    await record(session, reverted, subject=user.id, version=user.version)


async def _set_email(session: AsyncSession, user: User, email: str) -> None:
    # The index decides, but PostgreSQL would log each conflict that it finds.
    if await queries.is_email_taken(session, email, by_other_than=user.id):
        raise EmailTaken
    await queries.void_links(session, user)
    if user.change_email(email):
        with unique_email():
            await session.flush()
        updated = UserUpdated(user_id=user.id, name=user.name, email=user.email, changed=["email"])
        await record(session, updated, subject=user.id, version=user.version)
    await mark_verified(session, user)
