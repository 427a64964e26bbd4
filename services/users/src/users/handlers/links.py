"""One-time links: requested by people, issued when the mail is written, used once.

No event, log or table holds a link's secret. The event names the link, the mail's writer requests its secret, and only
the secret's hash is stored.
"""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from common.db.database import new_id, utc_now
from common.errors import NotFound
from common.messaging.outbox import record
from users import queries
from users.credentials import throttle
from users.credentials.throttle import LeakyBucket
from users.errors import InvalidLink
from users.events import SecretLinkRequested
from users.handlers.accounts import mark_verified, replace_password
from users.models import LinkPurpose, SecretLink, SecretLinkToken, User

CONFIRMED_WITHIN: Final = timedelta(hours=24)
_TOKEN_LIFETIME: Final[dict[LinkPurpose, timedelta]] = {
    "verify_email": timedelta(hours=24),
    "reset_password": timedelta(minutes=30),
    "confirm_email": CONFIRMED_WITHIN,
    "revert_email": timedelta(days=7),
}
"""From when the secret is issued."""
_ISSUE_WITHIN: Final = timedelta(hours=24)
"""How long after the request the mail may still be written."""
# Two limits: one account can change to many addresses, and many accounts can use one address after the other.
_FROM_ACCOUNT: Final = LeakyBucket("verifications from", capacity=5, interval=720)
_TO_ADDRESS: Final = LeakyBucket("verifications to", capacity=5, interval=720)


@dataclass(frozen=True, slots=True)
class IssuedLink:
    """What the mail's writer needs. `email` is where the mail goes. `token` exists only here and in the mail."""

    token: str
    purpose: LinkPurpose
    user_id: UUID
    name: str
    email: str
    expires_at: datetime


async def request_email_verification(session: AsyncSession, user_id: UUID) -> None:
    """Does nothing if the address is verified, or has got a few of these mails within the hour. Raises `NotFound`."""
    user = await queries.lock_user(session, user_id)
    if not user.email_verified and await count_mail(session, user, user.email):
        await request_link(session, user, "verify_email")


async def request_link(session: AsyncSession, user: User, purpose: LinkPurpose, *, email: str | None = None) -> None:
    """Requests a mail with a link. `email` is the address that the link confirms or restores. The mail goes there."""
    link = SecretLink(id=new_id(), user_id=user.id, purpose=purpose, email=email, requested_at=utc_now())
    session.add(link)
    requested = SecretLinkRequested(link_id=link.id, user_id=user.id, purpose=link.purpose)
    await record(session, requested, subject=link.id, version=1)


async def count_mail(session: AsyncSession, user: User, email: str) -> bool:
    """Counts a mail to an address that the person claims as theirs. False if a limit is reached.

    Counting the links would not do: a change of the address deletes them.
    """
    for bucket, subject in ((_FROM_ACCOUNT, str(user.id)), (_TO_ADDRESS, email)):
        if not await throttle.count_unless_full(session, bucket, subject):
            return False
    return True


async def issue_link(session: AsyncSession, link_id: UUID) -> IssuedLink:
    """Creates a secret for the mail that is being written. May be repeated: the earlier mail may not have been sent.

    Raises `NotFound` if the mail must not be sent any more.
    """
    link, user = await queries.lock_issuable_link(session, link_id, within=_ISSUE_WITHIN)
    token = secrets.token_urlsafe(32)
    expires_at = utc_now() + _TOKEN_LIFETIME[link.purpose]
    session.add(SecretLinkToken(digest=_digest(token), link_id=link.id, expires_at=expires_at))
    return IssuedLink(token, link.purpose, user.id, user.name, link.email or user.email, expires_at)


async def confirm_email(session: AsyncSession, token: str) -> None:
    """Uses the link and marks the address as verified. Raises `InvalidLink`."""
    user, _ = await use_link(session, token, "verify_email")
    await mark_verified(session, user)


async def reset_owner(session: AsyncSession, token: str) -> User:
    """Returns the account whose password the link resets, without using the link. Raises `InvalidLink`."""
    owner = await queries.link_owner(session, _digest(token), "reset_password")
    if owner is None:
        raise InvalidLink
    return owner


async def reset_password(session: AsyncSession, token: str, password_hash: str, *, network: str) -> None:
    """Uses the link and sets the password; all sessions end. Raises `InvalidLink`.

    The person has received a mail at the address. Nothing that failed before delays them, and their network counts as
    known.
    """
    owner = await reset_owner(session, token)
    await throttle.forget_failures(session, owner.email)  # before the account, as sign-ins lock
    user, _ = await use_link(session, token, "reset_password")
    # Those of the current password and of new authenticators: after the account, as a confirmation locks.
    await throttle.forget_failures(session, str(user.id))
    await replace_password(session, user, password_hash, by="reset")
    await mark_verified(session, user)
    await queries.record_known_network(session, user.id, network)


async def use_link(session: AsyncSession, token: str, purpose: LinkPurpose) -> tuple[User, SecretLink]:
    """Marks the link as used and returns its owner, locked, and the link. Raises `InvalidLink`.

    Locks the account before the link, as a change of the account does when it makes links void.
    """
    digest = _digest(token)
    owner = await queries.link_owner(session, digest, purpose)
    if owner is None:
        raise InvalidLink
    try:
        user = await queries.lock_user(session, owner.id)
    except NotFound:  # erased meanwhile
        raise InvalidLink from None
    link = await queries.lock_valid_link(session, digest, purpose)
    if link is None:
        raise InvalidLink
    link.used_at = utc_now()
    await session.flush()
    return user, link


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
