"""Slows down those who guess passwords, without a lock that a stranger could put on somebody's account.

Three counts, all taken before the password is looked at, so that parallel guesses gain nothing:
- failures of one account from one network: a few are free, then each doubles the wait before the next try;
- failures from one network on any account, and on one account from any network: leaky buckets. A network that the
  account was signed in from before is subject to neither.

An account is known here by the address that was typed, whether or not it exists; rows hold digests only. What was
counted is taken back when the password is right. Time is the database's, so that all processes agree on it.
"""

import hashlib
import ipaddress
import math
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, case, delete, extract, func, literal, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from users.errors import TooManyAttempts
from users.models import LoginBackoff, LoginBucket

FREE_FAILURES: Final = 10
"""Failures of one account from one network before the first wait, which is a second."""
LONGEST_WAIT: Final = 900
"""Seconds."""
PARALLEL: Final = 64
"""Attempts of one account from one network whose outcome is open. An honest client may send several at once."""
FORGOTTEN_AFTER: Final = timedelta(days=1)

UNKNOWN_NETWORK: Final = "unknown"
_ABANDONED_AFTER: Final = timedelta(seconds=60)
"""No attempt takes that long: its process died. It then counts as a failure."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """`capacity` failures at once, and one more every `interval` seconds, which is also the `Retry-After`."""

    name: str
    capacity: int
    interval: int

    def key(self, subject: str) -> bytes:
        return _digest(self.name, subject)


PER_NETWORK: Final = Bucket("network", capacity=100, interval=3)
PER_ACCOUNT: Final = Bucket("account", capacity=50, interval=10)


@dataclass(frozen=True, slots=True)
class Attempt:
    """What was counted for one try, to be settled once its outcome is known."""

    pair: bytes
    buckets: tuple[bytes, ...]


def network_of(address: str) -> str:
    """The network that an address (or a network, as it is) belongs to: one IPv4 address, or an IPv6 /64.

    What is no address counts as one network of its own: a sign-in must not fail for how it came here.
    """
    try:
        interface = ipaddress.ip_interface(address)
    except ValueError:
        return UNKNOWN_NETWORK
    if isinstance(interface, ipaddress.IPv4Interface):
        return f"{interface.ip}/32"
    if interface.ip.ipv4_mapped is not None:
        return f"{interface.ip.ipv4_mapped}/32"
    return str(ipaddress.IPv6Network((int(interface.ip), 64), strict=False))


def pair_key(account: str, network: str) -> bytes:
    return _digest("pair", account, network)


async def admit(session: AsyncSession, *, account: str, network: str, known: bool) -> Attempt:
    """Counts an attempt. `known`: the account was signed in from there before.

    Raises `TooManyAttempts`, upon which the transaction rolls back and nothing is counted.
    """
    pair = pair_key(account, network)
    await _admit_pair(session, pair)
    if known:
        return Attempt(pair, ())
    buckets = ((PER_NETWORK, PER_NETWORK.key(network)), (PER_ACCOUNT, PER_ACCOUNT.key(account)))
    for bucket, key in buckets:
        await _fill(session, bucket, key)
    return Attempt(pair, tuple(key for _, key in buckets))


async def settle(session: AsyncSession, attempt: Attempt, *, success: bool) -> None:
    """Enters the outcome: a failure stays counted, a success is taken back and wipes the pair's failures."""
    row = LoginBackoff
    values: dict[str, Any] = {"in_flight": func.greatest(row.in_flight - 1, 0), "updated_at": func.now()}
    if success:
        values |= {"failures": 0, "blocked_until": None}
    else:
        failures = row.failures + 1
        values |= {"failures": failures, "blocked_until": _blocked_until(failures)}
    await session.execute(update(row).where(row.key == attempt.pair).values(values))
    if success:
        for key in attempt.buckets:
            level = func.greatest(LoginBucket.level - 1, 0)
            await session.execute(update(LoginBucket).where(LoginBucket.key == key).values(level=level))


async def forget_old(session: AsyncSession) -> None:
    """Deletes counts that no longer matter."""
    for table in (LoginBackoff, LoginBucket):
        await session.execute(delete(table).where(table.updated_at < func.now() - FORGOTTEN_AFTER))


async def _admit_pair(session: AsyncSession, key: bytes) -> None:
    row = LoginBackoff
    abandoned = row.updated_at < func.now() - _ABANDONED_AFTER
    in_flight = case((abandoned, 0), else_=row.in_flight)
    failures = row.failures + case((abandoned, row.in_flight), else_=0)
    admitted = await session.scalar(
        insert(row)
        .values(key=key, failures=0, in_flight=1, updated_at=func.now())
        .on_conflict_do_update(
            index_elements=[row.key],
            set_={"failures": failures, "in_flight": in_flight + 1, "updated_at": func.now()},
            where=and_(
                or_(row.blocked_until.is_(None), row.blocked_until <= func.now()),
                # Once the free ones are used up, one at a time: a wait that has passed opens for a single try.
                in_flight < case((failures < FREE_FAILURES, PARALLEL), else_=1),
            ),
        )
        .returning(literal(1))
    )
    if admitted is None:
        wait = await session.scalar(select(_seconds(row.blocked_until - func.now())).where(row.key == key))
        raise TooManyAttempts(max(1, math.ceil(wait or 0)))


def _blocked_until(failures: ColumnElement[int]) -> ColumnElement[Any]:
    """A wait of 1, 2, 4, … seconds from the last free failure on."""
    beyond = func.least(failures - FREE_FAILURES, 16)
    seconds = func.least(func.power(2.0, beyond), LONGEST_WAIT)
    return case((failures >= FREE_FAILURES, func.now() + func.make_interval(0, 0, 0, 0, 0, 0, seconds)))


async def _fill(session: AsyncSession, bucket: Bucket, key: bytes) -> None:
    row = LoginBucket
    drained = func.greatest(_seconds(func.now() - row.updated_at), 0) / bucket.interval
    level = func.greatest(row.level - drained, 0) + 1
    admitted = await session.scalar(
        insert(row)
        .values(key=key, level=1, updated_at=func.now())
        .on_conflict_do_update(
            index_elements=[row.key],
            set_={"level": level, "updated_at": func.now()},
            where=level <= bucket.capacity,
        )
        .returning(literal(1))
    )
    if admitted is None:
        raise TooManyAttempts(bucket.interval)


def _seconds(interval: ColumnElement[Any]) -> ColumnElement[Any]:
    return extract("epoch", interval)


def _digest(*parts: str) -> bytes:
    return hashlib.sha256("\x1f".join(parts).encode()).digest()
