"""Queries of `notifier.mail.limits`."""

from collections.abc import Collection, Mapping, Sequence
from typing import Final
from uuid import UUID

from sqlalchemy import func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from notifier.models import Contact, Delivery

_UNSYNCHRONIZED: Final = {"synchronize_session": False}


async def lock_verified(session: AsyncSession, user_ids: Collection[UUID]) -> dict[UUID, bool]:
    """Whether the address of each contact is verified, locked against a change.

    Without those that another transaction has locked: an erasure waits for the claimed deliveries, and would deadlock.
    """
    statement = (
        select(Contact.user_id, (Contact.verified_version >= Contact.email_version).label("is_verified"))
        .where(Contact.user_id.in_(user_ids))
        .with_for_update(read=True, skip_locked=True)
    )
    return {row.user_id: row.is_verified for row in await session.execute(statement)}


async def count_mails(session: AsyncSession, mails: Mapping[bytes, int]) -> dict[bytes, int]:
    """Adds to the counts of today. Returns the new ones."""
    if not mails:
        return {}
    statement = text("""
        INSERT INTO unverified_mails (day, address, mails)
        SELECT date_trunc('day', now(), 'UTC'), address, mails
        FROM unnest(CAST(:addresses AS bytea[]), CAST(:counts AS int[])) AS new (address, mails)
        ON CONFLICT (day, address) DO UPDATE SET mails = unverified_mails.mails + excluded.mails
        RETURNING address, mails
    """)
    addresses = sorted(mails)  # every deliverer locks them in this order
    values = {"addresses": addresses, "counts": [mails[address] for address in addresses]}
    return {row.address: row.mails for row in await session.execute(statement, values)}


async def hold(session: AsyncSession, delivery_ids: Sequence[UUID], *, cause: str) -> None:
    """Until the address is verified: see `notifier.queries.release_held`."""
    if delivery_ids:
        statement = update(Delivery).where(Delivery.id.in_(delivery_ids))
        held = statement.values(state="held", cause=cause, attempts=Delivery.attempts - 1)
        await session.execute(held, execution_options=_UNSYNCHRONIZED)


async def release(session: AsyncSession, delivery_ids: Sequence[UUID]) -> None:
    """Gives claims back, to be tried again in a second."""
    if delivery_ids:
        statement = update(Delivery).where(Delivery.id.in_(delivery_ids))
        released = statement.values(due_at=func.now() + text("interval '1 second'"), attempts=Delivery.attempts - 1)
        await session.execute(released, execution_options=_UNSYNCHRONIZED)
