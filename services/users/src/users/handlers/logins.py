"""Checking who somebody is, in two transactions with the hashing between them."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from common.db.database import utc_now
from users import queries
from users.credentials import throttle
from users.queries import LoginCandidate

_NETWORK_NOTED_EVERY: Final = timedelta(days=1)
_PASSWORD_CHANGE: Final = "password change"  # noqa: S105 - stands where sign-ins have a network


@dataclass(frozen=True, slots=True)
class Login:
    """A sign-in that was let through, to be finished once the password was compared."""

    network: str
    attempt: throttle.Attempt
    candidate: LoginCandidate | None

    @property
    def password_hash(self) -> str | None:
        return self.candidate.password_hash if self.candidate is not None else None


async def begin_login(session: AsyncSession, *, email: str, network: str) -> Login:
    """Counts the attempt. `email` is in lower case and may be anybody's, or nobody's. Raises `TooManyAttempts`."""
    candidate = await queries.login_candidate(session, email, network)
    known = candidate is not None and candidate.last_login_at is not None
    attempt = await throttle.admit(session, account=email, network=network, known=known)
    return Login(network, attempt, candidate)


async def finish_login(
    session: AsyncSession, login: Login, *, right_password: bool, new_hash: str | None = None
) -> LoginCandidate | None:
    """Whom the sign-in is of, or None when it is refused. A refusal is counted: commit it, then answer.

    `new_hash` is of the same password with today's parameters.
    """
    candidate = login.candidate
    if candidate is None or not right_password or candidate.status != "active":
        await throttle.settle(session, login.attempt, success=False)
        return None
    await throttle.settle(session, login.attempt, success=True)
    seen = candidate.last_login_at
    if seen is None or seen < utc_now() - _NETWORK_NOTED_EVERY:
        await queries.note_login(session, candidate.user_id, login.network)
    if new_hash is not None:
        await queries.replace_hash(session, candidate.user_id, old=candidate.password_hash, new=new_hash)
    return candidate


@dataclass(frozen=True, slots=True)
class PasswordCheck:
    """Somebody signed in who says the current password; what a new one is compared with as well."""

    name: str
    email: str
    password_hash: str
    attempt: throttle.Attempt


async def begin_password_check(session: AsyncSession, user_id: UUID) -> PasswordCheck:
    """Counts the attempt: a stolen session must not become a stolen account. Raises `NotFound`, `TooManyAttempts`."""
    user = await queries.user_with_password(session, user_id)
    attempt = await throttle.admit(session, account=str(user_id), network=_PASSWORD_CHANGE, known=True)
    return PasswordCheck(user.name, user.email, user.password_hash, attempt)
