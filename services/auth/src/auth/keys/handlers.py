"""The life of signing keys: pending, active, retiring, gone. Nothing here commits."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from auth import queries
from auth.events import KeysChanged
from auth.keys import keypairs
from auth.keys.keypairs import KeyEncryption
from auth.models import KeyStatus, SigningKey
from common.messaging.outbox import record


@dataclass(frozen=True, slots=True)
class KeyPolicy:
    """Which algorithm new keys have, and how long each status lasts."""

    alg: str
    pending: timedelta
    active: timedelta
    retiring: timedelta


def is_due(present: Sequence[SigningKey], policy: KeyPolicy, now: datetime) -> bool:
    """Whether `advance` would change anything."""
    active = [key for key in present if key.status == KeyStatus.ACTIVE]
    pending = [key for key in present if key.status == KeyStatus.PENDING]
    if not active or any(key.changes_at <= now for key in present if key.status != KeyStatus.ACTIVE):
        return True
    return not pending and _needs_successor(active[0], policy, now)


async def advance(session: AsyncSession, encryption: KeyEncryption, policy: KeyPolicy, now: datetime) -> None:
    """Takes every step that is due, under a lock that all replicas share. The very first key is active at once: no
    verifier knows another.
    """
    await _lock(session)
    present = await queries.signing_keys(session)
    active = next((key for key in present if key.status == KeyStatus.ACTIVE), None)
    pending = [key for key in present if key.status == KeyStatus.PENDING]
    for key in present:
        if key.status == KeyStatus.RETIRING and key.changes_at <= now:
            await session.delete(key)
            await _announce(session, key, "gone", key.version + 1, now)
    if active is None and not pending:
        active = await _add(session, encryption, policy, status=KeyStatus.ACTIVE, now=now, lasts=policy.active)
    for key in pending:
        if key.changes_at <= now or active is None:
            if active is not None:
                active.retire(now + policy.retiring)
                await session.flush()  # before the next one: two active keys are impossible
                await _announce(session, active, KeyStatus.RETIRING, active.version, now)
            key.activate(now + policy.active)
            await _announce(session, key, KeyStatus.ACTIVE, key.version, now)
            active = key
    if active is not None and not pending and _needs_successor(active, policy, now):
        wait = policy.pending if active.alg != policy.alg else max(policy.pending, active.changes_at - now)
        await _add(session, encryption, policy, status=KeyStatus.PENDING, now=now, lasts=wait)


async def rotate(session: AsyncSession, encryption: KeyEncryption, policy: KeyPolicy, now: datetime) -> SigningKey:
    """Publishes a new key now; it signs once verifiers have had time to learn of it. Can be repeated."""
    await _lock(session)
    return await _add(session, encryption, policy, status=KeyStatus.PENDING, now=now, lasts=policy.pending)


async def replace_all(session: AsyncSession, encryption: KeyEncryption, policy: KeyPolicy, now: datetime) -> SigningKey:
    """An emergency: every key goes at once, and with them all access tokens. Verifiers fetch the set on the event."""
    await _lock(session)
    for key in await queries.signing_keys(session):
        await session.delete(key)
        await _announce(session, key, "gone", key.version + 1, now)
    await session.flush()
    return await _add(session, encryption, policy, status=KeyStatus.ACTIVE, now=now, lasts=policy.active)


async def rewrap(session: AsyncSession, old: KeyEncryption, new: KeyEncryption) -> int:
    """Encrypts private parts anew that are still under `old`; returns how many."""
    await _lock(session)
    count = 0
    for key in await queries.signing_keys(session):
        if key.sealed is not None and key.kek_id == old.id:
            key.sealed = new.seal(old.unseal(key), key.kid, key.alg)
            key.kek_id = new.id
            count += 1
    return count


async def _add(
    session: AsyncSession,
    encryption: KeyEncryption,
    policy: KeyPolicy,
    *,
    status: KeyStatus,
    now: datetime,
    lasts: timedelta,
) -> SigningKey:
    # In a thread: an RSA key takes long enough to stall every request of the process.
    key = await asyncio.to_thread(
        keypairs.generate, encryption, policy.alg, status=status, now=now, changes_at=now + lasts
    )
    session.add(key)
    await _announce(session, key, status, key.version, now)
    return key


def _needs_successor(active: SigningKey, policy: KeyPolicy, now: datetime) -> bool:
    return active.alg != policy.alg or active.changes_at - policy.pending <= now


async def _announce(
    session: AsyncSession,
    key: SigningKey,
    status: KeyStatus | Literal["gone"],
    version: int,
    now: datetime,
) -> None:
    await record(session, KeysChanged(kid=key.kid, status=status), subject=key.kid, version=version, occurred_at=now)


async def _lock(session: AsyncSession) -> None:
    await session.execute(select(func.pg_advisory_xact_lock(func.hashtext("signing-keys"))))
