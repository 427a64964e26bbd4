"""SQL of people's sign-ins."""

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import delete, exists, insert, literal, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from auth.sign_in_models import SignIn
from common.db.database import first_id_at

_THROTTLED_EVERY: Final = timedelta(minutes=1)
"""Of throttled sign-ins of one account, one is kept in this time: nothing else limits their number."""


async def sign_ins(
    session: AsyncSession, user_id: uuid.UUID, *, after: uuid.UUID | None, limit: int
) -> Sequence[SignIn]:
    """The person's sign-ins, newest first: ids sort by time."""
    query = select(SignIn).where(SignIn.user_id == user_id)
    if after is not None:
        query = query.where(SignIn.id < after)
    return (await session.scalars(query.order_by(SignIn.id.desc()).limit(limit))).all()


async def has_signed_in(session: AsyncSession, user_id: uuid.UUID, *, network: str, device: str) -> bool:
    """Whether a session of the person was begun with this device in this network, as far as sign-ins are kept.

    A sign-in on a page that has begun none yet was not announced to anybody.
    """
    found = exists().where(
        SignIn.user_id == user_id,
        SignIn.session_id.is_not(None),
        SignIn.network == network,
        SignIn.device == device,
    )
    return bool(await session.scalar(select(found)))


async def set_session(
    session: AsyncSession, user_id: uuid.UUID, *, signed_in_at: datetime, session_id: uuid.UUID
) -> None:
    """Names the first session that a sign-in on a page began."""
    await session.execute(
        update(SignIn)
        .where(
            SignIn.user_id == user_id,
            SignIn.created_at == signed_in_at,
            SignIn.outcome == "succeeded",
            SignIn.session_id.is_(None),
        )
        .values(session_id=session_id)
    )


async def add_throttled(session: AsyncSession, row: SignIn, now: datetime) -> None:
    """Adds the row unless one of the same account is recent."""
    columns = SignIn.__table__.c
    recent = exists().where(
        SignIn.user_id == row.user_id, SignIn.id > first_id_at(now - _THROTTLED_EVERY), SignIn.outcome == row.outcome
    )
    values = {
        name: getattr(row, name)
        for name in ("id", "user_id", "created_at", "network", "device", "client_id", "outcome")
    }
    selected = select(*(literal(value, columns[name].type) for name, value in values.items())).where(~recent)
    await session.execute(insert(SignIn).from_select(list(values), selected))


async def delete_sign_ins(session: AsyncSession, user_id: uuid.UUID) -> None:
    await session.execute(delete(SignIn).where(SignIn.user_id == user_id))
