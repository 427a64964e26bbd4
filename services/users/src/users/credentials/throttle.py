"""Slows down password guessing, without a lock that a stranger could put on someone's account.

Every attempt is counted before its password is checked, so that parallel guesses gain nothing. There are three counts:
- failures of one account from one network: the first few are free, then each doubles the wait before the next attempt;
- failures from one network on any account: a leaky bucket;
- failures on one account from any network: a leaky bucket. Neither bucket applies to a network from which the account
  has signed in before.

An account is identified by the address that was typed, whether or not it exists; rows hold digests only. When the
password is right, and the code where there is a second factor, the attempt no longer counts. E-mail addresses that
sign-ups, changes of an address and requests for a mail name are counted too, by network, whatever the outcome. Times
are the database's, so that all processes agree on them.
"""

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy import delete, func, text
from sqlalchemy.ext.asyncio import AsyncSession

from common.security.networks import site_of
from users.errors import TooManyAddresses, TooManyAttempts
from users.models import LoginBackoff, LoginBucket

FREE_FAILURES: Final = 10
"""Failures of one account from one network before the first wait, which is a second."""
MAX_WAIT: Final = 900
"""Seconds."""
MAX_IN_FLIGHT: Final = 64
"""Attempts of one account from one network whose outcome is open. An honest client may send several at once."""
RETENTION: Final = timedelta(days=1)

_ADDRESSES_WINDOW: Final = 600
"""Seconds in which a network may try as many addresses again as it may at once."""
_SITE_FACTOR: Final = 4
"""An IPv6 /48 may be one customer's, or hold many customers' /64s."""
_ABANDONED: Final = "(backoff.updated_at < now() - interval '60 seconds')"
"""No attempt takes that long: its process died. It then counts as a failure."""


@dataclass(frozen=True, slots=True)
class LeakyBucket:
    """Has room for `capacity` at once and for one more every `interval` seconds, which is also the `Retry-After`.

    `name` is part of the stored keys: a new name starts every count again.
    """

    name: str
    capacity: int
    interval: float

    def key(self, *subject: str) -> bytes:
        return _digest(self.name, *subject)


PER_NETWORK: Final = LeakyBucket("network", capacity=100, interval=3)
PER_ACCOUNT: Final = LeakyBucket("account", capacity=50, interval=10)


@dataclass(frozen=True, slots=True)
class Attempt:
    """What was counted for one attempt whose outcome is open: the keys of its rows."""

    backoff: bytes
    buckets: tuple[bytes, ...]


def attempt_key(account: str, network: str) -> bytes:
    """Identifies attempts on one account from one network."""
    return _digest("pair", account, network)


async def begin_attempt(session: AsyncSession, *, account: str, network: str, is_known: bool) -> Attempt:
    """Counts an attempt. `is_known`: the account has signed in from the network before.

    Raises `TooManyAttempts`; the transaction then rolls back and nothing is counted.
    """
    backoff, by_network, by_account = attempt_key(account, network), PER_NETWORK.key(network), PER_ACCOUNT.key(account)
    keys = {"backoff": backoff, "network": by_network, "account": by_account}
    counted = (await session.execute(_BEGIN, keys | {"is_known": is_known})).one()
    if not counted.backoff:
        raise TooManyAttempts(await session.scalar(_WAIT, {"key": backoff}) or 1)
    if not is_known and not counted.account:
        raise TooManyAttempts((PER_ACCOUNT if counted.network else PER_NETWORK).interval)
    return Attempt(backoff, () if is_known else (by_network, by_account))


async def end_attempt(session: AsyncSession, attempt: Attempt, *, succeeded: bool) -> None:
    """A failed attempt stays counted. A successful one no longer counts, and resets the account's failures from
    this network.
    """
    await session.execute(_SUCCEEDED if succeeded else _FAILED, {"key": attempt.backoff})
    if succeeded:
        for key in attempt.buckets:
            await session.execute(_LOWER_BUCKET, {"key": key})


async def release_attempt(session: AsyncSession, attempt: Attempt) -> None:
    """For an attempt that neither failed nor succeeded: it no longer counts, and the failures before it still do."""
    await session.execute(_RELEASED, {"key": attempt.backoff})
    for key in attempt.buckets:
        await session.execute(_LOWER_BUCKET, {"key": key})


async def forgive(session: AsyncSession, account: str, *, network: str) -> None:
    """Forgets the failures on an account: those from the network, and those from all networks together."""
    await session.execute(delete(LoginBackoff).where(LoginBackoff.key == attempt_key(account, network)))
    await session.execute(delete(LoginBucket).where(LoginBucket.key == PER_ACCOUNT.key(account)))


async def count_unless_full(session: AsyncSession, bucket: LeakyBucket, subject: str) -> bool:
    """Counts one more of anything but sign-ins. False, with nothing counted, if the bucket is full."""
    counted = await session.scalar(text(count_in_bucket_sql(bucket, key=":key")), {"key": bucket.key(subject)})
    return counted is not None


async def count_address(session: AsyncSession, network: str, *, limit: int) -> None:
    """Counts an e-mail address that someone in the network wants to use or have a mail sent to. Commit it in any case.

    Raises `TooManyAddresses`; the transaction then rolls back and nothing is counted.
    """
    site = site_of(network)
    limits = {network: limit} if site == network else {network: limit, site: _SITE_FACTOR * limit}
    for subject, capacity in limits.items():
        bucket = LeakyBucket("addresses from", capacity=capacity, interval=_ADDRESSES_WINDOW / capacity)
        if not await count_unless_full(session, bucket, subject):
            raise TooManyAddresses(bucket.interval)


async def delete_expired(session: AsyncSession) -> None:
    """Deletes counts that no longer matter."""
    for table in (LoginBackoff, LoginBucket):
        await session.execute(delete(table).where(table.updated_at < func.now() - RETENTION))


def count_in_bucket_sql(bucket: LeakyBucket, *, key: str | None = None, where: str = "true") -> str:
    """The SQL that counts one more in a bucket and returns a row unless it is full.

    `key` is an SQL expression, by default the parameter with the bucket's name.
    """
    key = key or f":{bucket.name}"
    leaked = f"extract(epoch FROM now() - bucket.updated_at) / {bucket.interval}"
    level = f"greatest(bucket.level - greatest({leaked}, 0), 0) + 1"
    return f"""INSERT INTO login_buckets AS bucket (key, level, updated_at)
        SELECT {key}, 1, now() WHERE {where}
        ON CONFLICT (key) DO UPDATE SET level = {level}, updated_at = now() WHERE {level} <= {bucket.capacity}
        RETURNING true"""


# The statements are built once: a sign-in runs two of them, and building them each time would cost more than they do.

# One statement, so that known and unknown accounts take the same round trips. Each part depends on the one before it,
# so that any two sign-ins lock their rows in the same order.
# Once the free failures are used up, one attempt at a time: when a wait is over, a single attempt is allowed.
_BEGIN: Final = text(f"""
    WITH backoff AS (
        INSERT INTO login_backoffs AS backoff (key, failures, in_flight, updated_at) VALUES (:backoff, 0, 1, now())
        ON CONFLICT (key) DO UPDATE SET
            failures = backoff.failures + CASE WHEN {_ABANDONED} THEN backoff.in_flight ELSE 0 END,
            in_flight = CASE WHEN {_ABANDONED} THEN 0 ELSE backoff.in_flight END + 1,
            updated_at = now()
        WHERE (backoff.blocked_until IS NULL OR backoff.blocked_until <= now())
          AND ({_ABANDONED}
               OR backoff.in_flight < CASE WHEN backoff.failures < {FREE_FAILURES} THEN {MAX_IN_FLIGHT} ELSE 1 END)
        RETURNING true),
    network AS ({count_in_bucket_sql(PER_NETWORK, where="NOT :is_known AND EXISTS (SELECT FROM backoff)")}),
    account AS ({count_in_bucket_sql(PER_ACCOUNT, where="NOT :is_known AND EXISTS (SELECT FROM network)")})
    SELECT EXISTS (SELECT FROM backoff) AS backoff, EXISTS (SELECT FROM network) AS network,
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
            * least(2 ^ least(failures + 1 - {FREE_FAILURES}, 16), {MAX_WAIT}) END
    WHERE key = :key""")  # noqa: S608
_RELEASED: Final = text("UPDATE login_backoffs SET in_flight = greatest(in_flight - 1, 0) WHERE key = :key")
_LOWER_BUCKET: Final = text("UPDATE login_buckets SET level = greatest(level - 1, 0) WHERE key = :key")


def _digest(*parts: str) -> bytes:
    return hashlib.sha256("\x1f".join(parts).encode()).digest()
