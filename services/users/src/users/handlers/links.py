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
from common.messaging.outbox import record
from users import queries
from users.credentials import throttle
from users.credentials.throttle import LeakyBucket
from users.errors import InvalidLink
from users.events import SecretLinkRequested, UserEmailVerified
from users.handlers.accounts import replace_password
from users.handlers.logins import forget_failures
from users.models import LinkPurpose, SecretLink, SecretLinkToken, User

_TOKEN_LIFETIME: Final[dict[LinkPurpose, timedelta]] = {
    "verify_email": timedelta(hours=24),
    "reset_password": timedelta(minutes=30),
}
"""From when the secret is issued."""
_ISSUE_WITHIN: Final = timedelta(hours=24)
"""How long after the request the mail may still be written."""
# Two limits: one account can change to many addresses, and many accounts can use one address after the other.
_FROM_ACCOUNT: Final = LeakyBucket("verifications from", capacity=5, interval=720)
_TO_ADDRESS: Final = LeakyBucket("verifications to", capacity=5, interval=720)


@dataclass(frozen=True, slots=True)
class IssuedLink:
    """What the mail's writer needs. `token` exists only here and in the mail."""

    token: str
    purpose: LinkPurpose
    user_id: UUID
    name: str
    email: str
    expires_at: datetime


async def request_email_verification(session: AsyncSession, user_id: UUID) -> None:
    """Does nothing if the address is verified, or has got a few of these mails within the hour. Raises `NotFound`."""
    user = await queries.lock_user(session, user_id)
    if user.email_verified or not await _count_mail(session, user):
        return
    link = SecretLink(id=new_id(), user_id=user.id, purpose="verify_email", requested_at=utc_now())
    session.add(link)
    requested = SecretLinkRequested(link_id=link.id, user_id=user.id, purpose=link.purpose)
    await record(session, requested, subject=link.id, version=1)


async def _count_mail(session: AsyncSession, user: User) -> bool:
    """False if a limit is reached. Counting the links would not do: a change of the address deletes them."""
    for bucket, subject in ((_FROM_ACCOUNT, str(user.id)), (_TO_ADDRESS, user.email)):
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
    return IssuedLink(token, link.purpose, user.id, user.name, user.email, expires_at)


async def confirm_email(session: AsyncSession, token: str) -> None:
    """Uses the link and marks the address as verified. Raises `InvalidLink`."""
    user = await _use(session, token, "verify_email")
    if user.verify_email():
        await record(session, UserEmailVerified(user_id=user.id), subject=user.id, version=user.version)


async def reset_owner(session: AsyncSession, token: str) -> User:
    """Returns the account whose password the link resets, without using the link. Raises `InvalidLink`."""
    owner = await queries.link_owner(session, _digest(token), "reset_password")
    if owner is None:
        raise InvalidLink
    return owner


async def reset_password(session: AsyncSession, token: str, password_hash: str, *, network: str) -> None:
    """Uses the link and sets the password. All sessions end, failed sign-ins are forgotten. Raises `InvalidLink`."""
    user = await _use(session, token, "reset_password")
    await forget_failures(session, user, network=network)
    await replace_password(session, user, password_hash, except_session_id=None)


async def _use(session: AsyncSession, token: str, purpose: LinkPurpose) -> User:
    """Marks the link as used and returns its owner, locked. Raises `InvalidLink`.

    Locks the account before the link, as a change of the account does when it makes links void.
    """
    digest = _digest(token)
    owner = await queries.link_owner(session, digest, purpose)
    if owner is None:
        raise InvalidLink
    user = await queries.lock_user(session, owner.id)
    link = await queries.lock_valid_link(session, digest, purpose)
    if link is None:
        raise InvalidLink
    link.used_at = utc_now()
    await session.flush()
    return user


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
