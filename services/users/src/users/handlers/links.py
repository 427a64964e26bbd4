"""One-time links: asked for by people, made when their mail is written, used once.

No secret is in an event, a log or a table: the event names the link, the mail's writer has the secret made, and only
its hash is kept.
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
from users.credentials.throttle import Bucket
from users.errors import InvalidLink
from users.events import SecretLinkRequested, UserEmailVerified
from users.handlers.accounts import replace_password
from users.models import LinkPurpose, SecretLink, SecretLinkToken, User

LIFETIME: Final[dict[LinkPurpose, timedelta]] = {
    "verify_email": timedelta(hours=24),
    "reset_password": timedelta(minutes=30),
}
"""Of a secret, from when it is made."""
ISSUABLE: Final = timedelta(hours=24)
"""How long after the request its mail may still be written."""
_FROM_ACCOUNT: Final = Bucket("verifications from", capacity=5, interval=720)
_TO_ADDRESS: Final = Bucket("verifications to", capacity=5, interval=720)
"""Both: an account can take any free address, and an address can be taken by one account after the other."""


@dataclass(frozen=True, slots=True)
class IssuedLink:
    """What the writer of the mail needs. `token` exists here and in the mail only."""

    token: str
    purpose: LinkPurpose
    user_id: UUID
    name: str
    email: str
    expires_at: datetime


async def request_email_verification(session: AsyncSession, user_id: UUID) -> None:
    """Nothing happens where the address is verified already, or a few mails went out this hour. Raises `NotFound`."""
    user = await queries.lock_user(session, user_id)
    if user.email_verified or not await _may_be_mailed(session, user):
        return
    link = SecretLink(id=new_id(), user_id=user.id, purpose="verify_email", requested_at=utc_now())
    session.add(link)
    requested = SecretLinkRequested(link_id=link.id, user_id=user.id, purpose=link.purpose)
    await record(session, requested, subject=link.id, version=1)


async def _may_be_mailed(session: AsyncSession, user: User) -> bool:
    """Counted apart from the links themselves: a change of the address deletes those, and must not win more mails."""
    for bucket, subject in ((_FROM_ACCOUNT, str(user.id)), (_TO_ADDRESS, user.email)):
        if not await throttle.has_room(session, bucket, subject):
            return False
    return True


async def issue(session: AsyncSession, link_id: UUID) -> IssuedLink:
    """Makes a secret for the mail that is being written. May be repeated: the mail before may not have gone out.

    Raises `NotFound` where no mail should be written any more.
    """
    link, user = await queries.lock_issuable_link(session, link_id, within=ISSUABLE)
    token = secrets.token_urlsafe(32)
    expires_at = utc_now() + LIFETIME[link.purpose]
    session.add(SecretLinkToken(digest=_digest(token), link_id=link.id, expires_at=expires_at))
    return IssuedLink(token, link.purpose, user.id, user.name, user.email, expires_at)


async def confirm_email(session: AsyncSession, token: str) -> None:
    """Uses the link and marks the address as verified. Raises `InvalidLink`."""
    user = await _use(session, token, "verify_email")
    if user.verify_email():
        await record(session, UserEmailVerified(user_id=user.id), subject=user.id, version=user.version)


async def reset_owner(session: AsyncSession, token: str) -> User:
    """Whose password the link resets; does not use it. Raises `InvalidLink`."""
    owner = await queries.link_owner(session, _digest(token), "reset_password")
    if owner is None:
        raise InvalidLink
    return owner


async def reset_password(session: AsyncSession, token: str, password_hash: str) -> None:
    """Uses the link and sets the password; all sessions end. Raises `InvalidLink`."""
    user = await _use(session, token, "reset_password")
    await replace_password(session, user, password_hash, except_session_id=None)


async def _use(session: AsyncSession, token: str, purpose: LinkPurpose) -> User:
    """The account's row first, then the link's: the order in which a change of the account voids links."""
    digest = _digest(token)
    owner = await queries.link_owner(session, digest, purpose)
    if owner is None:
        raise InvalidLink
    user = await queries.lock_user(session, owner.id)
    link = await queries.lock_good_link(session, digest, purpose)
    if link is None:
        raise InvalidLink
    link.used_at = utc_now()
    await session.flush()
    return user


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
