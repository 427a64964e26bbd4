"""Password checks, in two transactions with the hashing between them: `begin_…` counts the attempt, `finish_…` its
outcome. The code of a second factor is checked in a transaction of its own before the outcome is counted.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from common.db.database import utc_now
from users import queries
from users.credentials import throttle
from users.errors import TooManyAttempts
from users.queries import LoginCandidate

_NETWORK_UPDATED_EVERY: Final = timedelta(days=1)
_PASSWORD_CHANGE: Final = "password change"  # noqa: S105 - takes the place of a sign-in's network


@dataclass(frozen=True, slots=True)
class Login:
    """A sign-in that was not throttled and whose password is not checked yet."""

    network: str
    attempt: throttle.Attempt
    candidate: LoginCandidate | None

    @property
    def user_id(self) -> UUID | None:
        return self.candidate.user_id if self.candidate is not None else None

    @property
    def password_hash(self) -> str | None:
        return self.candidate.password_hash if self.candidate is not None else None

    @property
    def needs_code_of(self) -> LoginCandidate | None:
        """The account, if it has a second factor and may sign in."""
        candidate = self.candidate
        if candidate is None or not candidate.has_second_factor or candidate.status != "active":
            return None
        return candidate


@dataclass(frozen=True, slots=True)
class Device:
    """A device on which this person has signed in before, as auth has verified."""

    user_id: UUID
    id: UUID


async def begin_login(session: AsyncSession, *, email: str, network: str, device: Device | None = None) -> Login:
    """Counts the attempt. `email` is in lower case; it need not belong to an account. Another person's device counts
    for nothing.

    Raises `TooManyAttempts`, which names the account.
    """
    candidate = await queries.login_candidate(session, email, network)
    is_known = candidate is not None and candidate.last_login_at is not None
    is_owners = device is not None and candidate is not None and device.user_id == candidate.user_id
    known_device = str(device.id) if device is not None and is_owners else None
    try:
        attempt = await throttle.begin_attempt(
            session, account=email, network=network, is_known=is_known, device=known_device
        )
    except TooManyAttempts as refusal:
        raise refusal.of(candidate.user_id) if candidate is not None else refusal from None
    return Login(network, attempt, candidate)


async def finish_login(
    session: AsyncSession, login: Login, *, is_right: bool, new_hash: str | None = None
) -> LoginCandidate | None:
    """Returns the account, or None if the sign-in is refused. A refusal is counted: commit it before you respond.

    `is_right` says whether the password is right, and the code if one is needed; `new_hash` is its hash with the
    parameters in use now, if the stored one is outdated.
    """
    candidate = login.candidate
    if candidate is None or not is_right or candidate.status != "active":
        await throttle.end_attempt(session, login.attempt, succeeded=False)
        return None
    await throttle.end_attempt(session, login.attempt, succeeded=True)
    last_login_at = candidate.last_login_at
    if last_login_at is None or last_login_at < utc_now() - _NETWORK_UPDATED_EVERY:
        await queries.record_known_network(session, candidate.user_id, login.network)
    if new_hash is not None:
        await queries.replace_hash(session, candidate.user_id, old=candidate.password_hash, new=new_hash)
    return candidate


async def leave_login(session: AsyncSession, login: Login) -> None:
    """For a sign-in with a right password whose code is missing: it does not count, and clears no failures."""
    await throttle.release_attempt(session, login.attempt)


@dataclass(frozen=True, slots=True)
class PasswordCheck:
    """A check of the current password before it, or the address, is changed. `name` and `email` are for checking a new
    password.
    """

    name: str
    email: str
    password_hash: str
    attempt: throttle.Attempt


async def begin_password_check(session: AsyncSession, user_id: UUID) -> PasswordCheck:
    """Counts the attempt: a stolen session must not allow guessing. Raises `NotFound`, `TooManyAttempts`."""
    user = await queries.user_with_password(session, user_id)
    attempt = await throttle.begin_attempt(session, account=str(user_id), network=_PASSWORD_CHANGE, is_known=True)
    return PasswordCheck(user.name, user.email, user.password_hash, attempt)


async def finish_password_check(session: AsyncSession, check: PasswordCheck, *, is_right: bool) -> None:
    await throttle.end_attempt(session, check.attempt, succeeded=is_right)
