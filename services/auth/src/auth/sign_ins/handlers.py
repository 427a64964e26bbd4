"""Keeps people's sign-ins, and recognises their devices. Nothing here commits."""

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from auth import queries
from auth.events import Reason
from auth.models import Subject
from auth.sign_in_models import Outcome, SignIn
from auth.sign_ins.queries import add_throttled, has_signed_in
from auth.tokens import refresh
from auth.tokens.device import KnownDevice
from common.db.database import new_id

_TAKEN_BACK: Final = frozenset[Reason]({"token_reuse", "code_reuse", "password_changed", "email_reverted"})


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a sign-in comes from. `network` is a digest (`common.security.log_digests`), `device` a description."""

    network: str
    device: str
    client_id: str


async def known_device(
    session: AsyncSession, refresh_token: str | None, *, client_id: str, secret: bytes
) -> KnownDevice | None:
    """The device that a refresh token of an earlier session proves, used or not, also after the session's end.

    None for any other text, and for a session that ended because somebody else may have it.
    """
    token = refresh.parse(refresh_token or "")
    found = None if token is None else await queries.family(session, token.family)
    if token is None or found is None:
        return None
    _, family = found
    if family.client_id != client_id or family.revoke_reason in _TAKEN_BACK or not family.has_issued(token, secret):
        return None
    return KnownDevice(family.user_id, family.id)


async def is_known_since(session: AsyncSession, device: KnownDevice, since: datetime) -> bool:
    """Whether nothing has voided the person's tokens since, such as a new password or a revert."""
    revoked_at = await queries.revoked_at(session, device.user_id)
    return revoked_at is None or since > revoked_at


async def keep_success(
    session: AsyncSession,
    subject: Subject,
    origin: Origin,
    *,
    session_id: uuid.UUID | None,
    now: datetime,
) -> bool:
    """Keeps a sign-in of a person whose row the caller has locked. Returns whether device and network are new to them.

    Those of their first sign-in of all are not.
    """
    is_first = subject.first_sign_in_at is None
    subject.first_sign_in_at = subject.first_sign_in_at or now
    is_new = not is_first and not await has_signed_in(
        session, subject.user_id, network=origin.network, device=origin.device
    )
    session.add(_row(subject.user_id, origin, "succeeded", now, session_id=session_id))
    return is_new


async def keep_refusal(
    session: AsyncSession, user_id: uuid.UUID, origin: Origin, outcome: Outcome, *, now: datetime
) -> None:
    """Keeps a refused sign-in of a person or of `NOBODY`. Of throttled ones, one a minute."""
    row = _row(user_id, origin, outcome, now)
    if outcome == "throttled":
        await add_throttled(session, row, now)
    else:
        session.add(row)


def _row(
    user_id: uuid.UUID, origin: Origin, outcome: Outcome, now: datetime, *, session_id: uuid.UUID | None = None
) -> SignIn:
    return SignIn(
        id=new_id(),
        user_id=user_id,
        created_at=now,
        network=origin.network,
        device=origin.device,
        client_id=origin.client_id,
        outcome=outcome,
        session_id=session_id,
    )
