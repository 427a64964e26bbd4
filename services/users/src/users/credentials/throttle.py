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
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy import delete, func, text
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
_ABANDONED: Final = "(pair.updated_at < now() - interval '60 seconds')"
"""No attempt takes that long: its process died. It then counts as a failure."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """`capacity` at once, and one more every `interval` seconds, which is also the `Retry-After`."""

    name: str
    capacity: int
    interval: int

    def key(self, *subject: str) -> bytes:
        return _digest(self.name, *subject)


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
    pair, by_network, by_account = pair_key(account, network), PER_NETWORK.key(network), PER_ACCOUNT.key(account)
    keys = {"pair": pair, "network": by_network, "account": by_account}
    within = (await session.execute(_ADMIT, keys | {"known": known})).one()
    if not within.pair:
        raise TooManyAttempts(await session.scalar(_WAIT, {"key": pair}) or 1)
    if not known and not within.account:
        raise TooManyAttempts((PER_ACCOUNT if within.network else PER_NETWORK).interval)
    return Attempt(pair, () if known else (by_network, by_account))


async def settle(session: AsyncSession, attempt: Attempt, *, success: bool) -> None:
    """Enters the outcome: a failure stays counted, a success is taken back and wipes the pair's failures."""
    await session.execute(_SUCCEEDED if success else _FAILED, {"key": attempt.pair})
    if success:
        for key in attempt.buckets:
            await session.execute(_EMPTY_BUCKET, {"key": key})


async def has_room(session: AsyncSession, bucket: Bucket, subject: str) -> bool:
    """Enters one more into a bucket of anything but sign-ins, unless it is full."""
    return await session.scalar(text(fill(bucket, key=":key")), {"key": bucket.key(subject)}) is not None


async def delete_expired(session: AsyncSession) -> None:
    """Deletes counts that no longer matter."""
    for table in (LoginBackoff, LoginBucket):
        await session.execute(delete(table).where(table.updated_at < func.now() - FORGOTTEN_AFTER))


# Made once: a sign-in runs two of them, and building them each time would cost more than they do.


def fill(bucket: Bucket, *, key: str | None = None, where: str = "true") -> str:
    """The SQL that enters one more into a bucket; a row if there was room. `key` is SQL too, and unless given the
    parameter of the bucket's name.
    """
    key = key or f":{bucket.name}"
    leaked = f"extract(epoch FROM now() - bucket.updated_at) / {bucket.interval}"
    level = f"greatest(bucket.level - greatest({leaked}, 0), 0) + 1"
    return f"""INSERT INTO login_buckets AS bucket (key, level, updated_at)
        SELECT {key}, 1, now() WHERE {where}
        ON CONFLICT (key) DO UPDATE SET level = {level}, updated_at = now() WHERE {level} <= {bucket.capacity}
        RETURNING true"""


# One statement, so that known and unknown accounts take the same round trips. Each part waits for the one before it:
# two sign-ins lock their rows in one order.
# Once the free failures are used up, one attempt at a time: a wait that has passed opens for a single try.
_ADMIT: Final = text(f"""
    WITH pair AS (
        INSERT INTO login_backoffs AS pair (key, failures, in_flight, updated_at) VALUES (:pair, 0, 1, now())
        ON CONFLICT (key) DO UPDATE SET
            failures = pair.failures + CASE WHEN {_ABANDONED} THEN pair.in_flight ELSE 0 END,
            in_flight = CASE WHEN {_ABANDONED} THEN 0 ELSE pair.in_flight END + 1,
            updated_at = now()
        WHERE (pair.blocked_until IS NULL OR pair.blocked_until <= now())
          AND ({_ABANDONED} OR pair.in_flight < CASE WHEN pair.failures < {FREE_FAILURES} THEN {PARALLEL} ELSE 1 END)
        RETURNING true),
    network AS ({fill(PER_NETWORK, where="NOT :known AND EXISTS (SELECT FROM pair)")}),
    account AS ({fill(PER_ACCOUNT, where="NOT :known AND EXISTS (SELECT FROM network)")})
    SELECT EXISTS (SELECT FROM pair) AS pair, EXISTS (SELECT FROM network) AS network,
           EXISTS (SELECT FROM account) AS account""")  # noqa: S608
_WAIT: Final = text("""
    SELECT greatest(ceil(extract(epoch FROM blocked_until - now())), 1)::integer
    FROM login_backoffs WHERE key = :key""")
_SUCCEEDED: Final = text("""
    UPDATE login_backoffs
    SET failures = 0, in_flight = greatest(in_flight - 1, 0), blocked_until = NULL, updated_at = now()
    WHERE key = :key""")
_FAILED: Final = text(f"""
    UPDATE login_backoffs
    SET failures = failures + 1, in_flight = greatest(in_flight - 1, 0), updated_at = now(),
        blocked_until = CASE WHEN failures + 1 >= {FREE_FAILURES} THEN now() + interval '1 second'
            * least(2 ^ least(failures + 1 - {FREE_FAILURES}, 16), {LONGEST_WAIT}) END
    WHERE key = :key""")  # noqa: S608
_EMPTY_BUCKET: Final = text("UPDATE login_buckets SET level = greatest(level - 1, 0) WHERE key = :key")


def _digest(*parts: str) -> bytes:
    return hashlib.sha256("\x1f".join(parts).encode()).digest()
