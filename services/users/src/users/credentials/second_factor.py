"""The second factor of an account: an authenticator app, and recovery codes.

A code is checked and used up in one step, under the lock of its row, so that of two equal codes at once one is good.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from common.errors import Unavailable
from common.observability.log_limit import limited_logger
from common.security.sealing import KeyEncryption, WrongKeyEncryptionKey
from users.credentials import recovery_codes, totp
from users.models import RecoveryCode, TotpAuthenticator

log = limited_logger(__name__)

AMR: Final = ("pwd", "otp", "mfa")
"""Authentication methods (RFC 8176 §2) of a sign-in with a password and a code."""

CodeKind = Literal["totp", "recovery"]


@dataclass(frozen=True, slots=True)
class Authenticators:
    confirmed: Sequence[TotpAuthenticator]
    """None or one."""
    recovery_codes_left: int


async def find(session: AsyncSession, user_id: UUID) -> Authenticators:
    """The confirmed authenticator, and how many recovery codes are left."""
    confirmed = select(TotpAuthenticator).where(
        TotpAuthenticator.user_id == user_id, TotpAuthenticator.confirmed_at.is_not(None)
    )
    left = await session.scalar(select(func.count()).where(RecoveryCode.user_id == user_id))
    return Authenticators((await session.scalars(confirmed)).all(), left or 0)


async def lock(session: AsyncSession, user_id: UUID) -> TotpAuthenticator | None:
    """The authenticator, confirmed or not, its row locked."""
    found: TotpAuthenticator | None = await session.scalar(
        select(TotpAuthenticator).where(TotpAuthenticator.user_id == user_id).with_for_update(),
        execution_options={"populate_existing": True},
    )
    return found


def new_authenticator(user_id: UUID, secret: str, encryption: KeyEncryption, now: datetime) -> TotpAuthenticator:
    return TotpAuthenticator(
        user_id=user_id,
        sealed=encryption.seal(secret.encode(), context=_context(user_id)),
        kek_id=encryption.id,
        created_at=now,
    )


async def use_totp(
    session: AsyncSession, authenticator: TotpAuthenticator, code: str, encryption: KeyEncryption, *, now: datetime
) -> bool:
    """Whether the code is good. If so, neither it nor one of an earlier step is good again; an authenticator that was
    not confirmed before is now.

    Raises `Unavailable` if the secret cannot be decrypted.
    """
    try:
        secret = _unseal(authenticator, encryption)
    except WrongKeyEncryptionKey as error:
        log.critical("authenticator cannot be read", cause=str(error))
        raise Unavailable from error
    step = totp.matching_step(secret, code, now=now, after=authenticator.last_step)
    if step is None:
        return False
    used = await session.execute(
        update(TotpAuthenticator)
        .where(
            TotpAuthenticator.user_id == authenticator.user_id,
            func.coalesce(TotpAuthenticator.last_step, -1) < step,
        )
        .values(last_step=step, last_used_at=now, confirmed_at=func.coalesce(TotpAuthenticator.confirmed_at, now))
        .returning(TotpAuthenticator.user_id)
    )
    return used.one_or_none() is not None


async def use_recovery_code(session: AsyncSession, user_id: UUID, code: str) -> bool:
    """Whether the code is good. If so, it is not good again."""
    statement = delete(RecoveryCode).where(
        RecoveryCode.user_id == user_id, RecoveryCode.digest == recovery_codes.digest(code)
    )
    return (await session.execute(statement.returning(RecoveryCode.user_id))).one_or_none() is not None


async def add_recovery_codes(session: AsyncSession, user_id: UUID, codes: Iterable[str]) -> None:
    rows = [{"user_id": user_id, "digest": recovery_codes.digest(code)} for code in codes]
    await session.execute(insert(RecoveryCode), rows)


async def rewrap(session: AsyncSession, old: KeyEncryption, new: KeyEncryption) -> int:
    """Encrypts the secrets that are still under `old` with `new`. Returns how many. Raises `WrongKeyEncryptionKey`."""
    under_old = select(TotpAuthenticator).where(TotpAuthenticator.kek_id == old.id).with_for_update()
    found: Sequence[TotpAuthenticator] = (await session.scalars(under_old)).all()
    for authenticator in found:
        secret = _unseal(authenticator, old).encode()
        authenticator.sealed = new.seal(secret, context=_context(authenticator.user_id))
        authenticator.kek_id = new.id
    return len(found)


def _unseal(authenticator: TotpAuthenticator, encryption: KeyEncryption) -> str:
    context = _context(authenticator.user_id)
    return encryption.unseal(authenticator.sealed, context=context, kek_id=authenticator.kek_id).decode()


def _context(user_id: UUID) -> str:
    return f"totp|{user_id}"
