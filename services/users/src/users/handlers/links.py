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

from common.database import new_id, utc_now
from common.outbox import record
from users import queries
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
_MOST_PER_HOUR: Final = 5


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
    if user.email_verified or await queries.verifications_since(session, user.id, timedelta(hours=1)) >= _MOST_PER_HOUR:
        return
    link = SecretLink(id=new_id(), user_id=user.id, purpose="verify_email", requested_at=utc_now())
    session.add(link)
    requested = SecretLinkRequested(link_id=link.id, user_id=user.id, purpose=link.purpose)
    await record(session, requested, subject=link.id, version=1)


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
