"""A person's second factor: added with a first code, used at sign-in, removed."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from common.db.database import utc_now
from common.errors import NotFound
from common.messaging.outbox import record
from common.security.sealing import KeyEncryption
from users import queries
from users.credentials import recovery_codes, second_factor, throttle, totp
from users.errors import AuthenticatorExists
from users.events import UserAuthenticatorChanged
from users.models import TotpAuthenticator, User
from users.queries import LoginCandidate

_CONFIRMATION: Final = "authenticator confirmation"
"""Takes the place of a sign-in's network."""
_CODE_LENGTH: Final = 6

Change = Literal["added", "removed", "recovery_code_used"]
Found = Literal["right", "wrong", "missing", "none"]
"""What became of the code of a sign-in. `none`: the account has no second factor."""


@dataclass(frozen=True, slots=True)
class NewTotp:
    """What an authenticator app needs. It exists only here and in the response."""

    secret: str
    otpauth_uri: str


async def add_totp(session: AsyncSession, user_id: UUID, encryption: KeyEncryption) -> NewTotp:
    """Stores an authenticator that is no second factor until it is confirmed. Replaces one that never was.

    Raises `NotFound`, `AuthenticatorExists`.
    """
    user = await queries.lock_user(session, user_id)
    existing = await second_factor.lock(session, user_id)
    if existing is not None:
        if existing.confirmed_at is not None:
            raise AuthenticatorExists
        await session.delete(existing)
        await session.flush()
    secret = totp.new_secret()
    session.add(second_factor.new_authenticator(user_id, secret, encryption, utc_now()))
    return NewTotp(secret, totp.otpauth_uri(secret, account=user.email))


async def begin_confirmation(session: AsyncSession, user_id: UUID) -> throttle.Attempt:
    """Counts the attempt. Raises `TooManyAttempts`, and `NotFound` if no authenticator waits, which counts nothing."""
    await _lock_unconfirmed(session, user_id)
    return await throttle.begin_attempt(session, account=str(user_id), network=_CONFIRMATION, is_known=True)


async def finish_confirmation(
    session: AsyncSession, user_id: UUID, code: str, encryption: KeyEncryption, attempt: throttle.Attempt
) -> list[str] | None:
    """Returns new recovery codes. None if the code is wrong, which is counted: commit it before you respond.

    Raises `NotFound` if there is no authenticator that waits for its confirmation.
    """
    user = await queries.lock_user(session, user_id)
    authenticator = await _lock_unconfirmed(session, user_id)
    is_right = await second_factor.use_totp(session, authenticator, code, encryption, now=utc_now())
    await throttle.end_attempt(session, attempt, succeeded=is_right)
    if not is_right:
        return None
    codes = recovery_codes.new_codes()
    await second_factor.add_recovery_codes(session, user_id, codes)
    await _record(session, user, "added")
    return codes


async def _lock_unconfirmed(session: AsyncSession, user_id: UUID) -> TotpAuthenticator:
    authenticator = await second_factor.lock(session, user_id)
    if authenticator is None or authenticator.confirmed_at is not None:
        raise NotFound("There is no authenticator that waits for its confirmation.")
    return authenticator


async def remove_totp(session: AsyncSession, user_id: UUID) -> None:
    """Removes the authenticator, confirmed or not, and the recovery codes. Raises `NotFound`."""
    user = await queries.lock_user(session, user_id)
    if not await remove(session, user):
        raise NotFound("There is no such authenticator.")


async def remove(session: AsyncSession, user: User, *, since: datetime | None = None) -> bool:
    """Removes the authenticator if it was added at `since` or later. False if there is none. The caller has locked
    `user`.
    """
    authenticator = await second_factor.lock(session, user.id)
    if authenticator is None or (since is not None and authenticator.created_at < since):
        return False
    was_confirmed = authenticator.confirmed_at is not None
    await session.delete(authenticator)
    await session.flush()
    if was_confirmed:
        await _record(session, user, "removed")
    return True


async def use_code(
    session: AsyncSession, account: LoginCandidate, code: str | None, encryption: KeyEncryption, *, now: datetime
) -> tuple[Found, int]:
    """Checks the code of a sign-in whose password is right, and uses it up.

    Returns as well the version that the sign-in has verified. The use of a recovery code makes the next one. What else
    has changed since the password was read is not verified.
    """
    try:
        user = await queries.lock_user(session, account.user_id)
    except NotFound:  # erased meanwhile
        return "wrong", account.version
    is_unchanged = user.version == account.version
    found = await _use_code(session, user, code, encryption, now=now)
    return found, user.version if is_unchanged else account.version


async def _use_code(
    session: AsyncSession, user: User, code: str | None, encryption: KeyEncryption, *, now: datetime
) -> Found:
    authenticator = await second_factor.lock(session, user.id)
    if authenticator is None or authenticator.confirmed_at is None:
        return "none"
    if code is None:
        return "missing"
    digits = code.replace(" ", "")
    if len(digits) == _CODE_LENGTH and digits.isascii() and digits.isdigit():
        return "right" if await second_factor.use_totp(session, authenticator, digits, encryption, now=now) else "wrong"
    if not await second_factor.use_recovery_code(session, user.id, code):
        return "wrong"
    await _record(session, user, "recovery_code_used")
    return "right"


async def _record(session: AsyncSession, user: User, change: Change) -> None:
    user.count_change()
    changed = UserAuthenticatorChanged(user_id=user.id, change=change)
    await record(session, changed, subject=user.id, version=user.version)
