"""The lifecycle of signing keys: pending, active, retiring, gone. Nothing here commits."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from auth import queries
from auth.events import KeysChanged
from auth.keys import keypairs
from auth.models import KeyStatus, SigningKey
from common.messaging.outbox import record
from common.security.sealing import KeyEncryption


@dataclass(frozen=True, slots=True)
class KeyPolicy:
    """The algorithm of new keys, and how long a key keeps each status."""

    alg: str
    pending: timedelta
    active: timedelta
    retiring: timedelta


def is_due(keys: Sequence[SigningKey], policy: KeyPolicy, now: datetime) -> bool:
    """Whether `advance_keys` would change anything."""
    active, pending = _active(keys), _pending(keys)
    if active is None or any(key.changes_at <= now for key in keys if key is not active):
        return True
    return not pending and _needs_successor(active, policy, now)


async def advance_keys(session: AsyncSession, encryption: KeyEncryption, policy: KeyPolicy, now: datetime) -> None:
    """Deletes, activates and adds the keys that are due, under a lock shared by all replicas.

    The first key of all is active at once, because no verifier holds an older key set.
    """
    await _lock(session)
    keys = await queries.signing_keys(session)
    active, pending = _active(keys), _pending(keys)
    for key in keys:
        if key.status == KeyStatus.RETIRING and key.changes_at <= now:
            await _delete(session, key, now)
    for key in pending:
        if active is None or key.changes_at <= now:
            await _activate(session, key, policy, now, predecessor=active)
            active = key
    if active is None:
        active = await _add(session, encryption, policy, status=KeyStatus.ACTIVE, now=now, lasts=policy.active)
    if not pending and _needs_successor(active, policy, now):
        wait = policy.pending if active.alg != policy.alg else max(policy.pending, active.changes_at - now)
        await _add(session, encryption, policy, status=KeyStatus.PENDING, now=now, lasts=wait)


async def add_pending_key(
    session: AsyncSession, encryption: KeyEncryption, policy: KeyPolicy, now: datetime
) -> SigningKey:
    """Publishes a new key now. It signs after `policy.pending`, when verifiers have fetched it. Can be repeated."""
    await _lock(session)
    return await _add(session, encryption, policy, status=KeyStatus.PENDING, now=now, lasts=policy.pending)


async def replace_all_keys(
    session: AsyncSession, encryption: KeyEncryption, policy: KeyPolicy, now: datetime
) -> SigningKey:
    """For an emergency: deletes every key, which voids all access tokens, and adds one that signs at once.

    The events make verifiers fetch the new key set.
    """
    await _lock(session)
    for key in await queries.signing_keys(session):
        await _delete(session, key, now)
    await session.flush()  # first: SQLAlchemy inserts before it deletes, and only one key may be active
    return await _add(session, encryption, policy, status=KeyStatus.ACTIVE, now=now, lasts=policy.active)


async def rewrap_keys(session: AsyncSession, old: KeyEncryption, new: KeyEncryption) -> int:
    """Encrypts the private parts that are still under `old` with `new`. Returns how many."""
    await _lock(session)
    count = 0
    for key in await queries.signing_keys(session):
        if key.sealed is not None and key.kek_id == old.id:
            key.sealed = keypairs.seal(new, keypairs.unseal(old, key), key.kid, key.alg)
            key.kek_id = new.id
            count += 1
    return count


def _active(keys: Sequence[SigningKey]) -> SigningKey | None:
    return next((key for key in keys if key.status == KeyStatus.ACTIVE), None)


def _pending(keys: Sequence[SigningKey]) -> list[SigningKey]:
    return [key for key in keys if key.status == KeyStatus.PENDING]


def _needs_successor(active: SigningKey, policy: KeyPolicy, now: datetime) -> bool:
    return active.alg != policy.alg or active.changes_at - policy.pending <= now


async def _add(
    session: AsyncSession,
    encryption: KeyEncryption,
    policy: KeyPolicy,
    *,
    status: KeyStatus,
    now: datetime,
    lasts: timedelta,
) -> SigningKey:
    # In a thread: generating an RSA key takes long enough to stall every request of the process.
    key = await asyncio.to_thread(
        keypairs.generate, encryption, policy.alg, status=status, now=now, changes_at=now + lasts
    )
    session.add(key)
    await _record(session, key, now)
    return key


async def _activate(
    session: AsyncSession, key: SigningKey, policy: KeyPolicy, now: datetime, *, predecessor: SigningKey | None
) -> None:
    if predecessor is not None:
        predecessor.retire(now + policy.retiring)
        await session.flush()  # first: a unique index allows only one active key
        await _record(session, predecessor, now)
    key.activate(now + policy.active)
    await _record(session, key, now)


async def _delete(session: AsyncSession, key: SigningKey, now: datetime) -> None:
    await session.delete(key)
    gone = KeysChanged(kid=key.kid, status="gone")
    await record(session, gone, subject=key.kid, version=key.version + 1, occurred_at=now)


async def _record(session: AsyncSession, key: SigningKey, now: datetime) -> None:
    changed = KeysChanged(kid=key.kid, status=KeyStatus(key.status))
    await record(session, changed, subject=key.kid, version=key.version, occurred_at=now)


async def _lock(session: AsyncSession) -> None:
    await session.execute(select(func.pg_advisory_xact_lock(func.hashtext("signing-keys"))))
