"""Slows down password guessing, without a lock that a stranger could put on someone's account.

Every attempt is counted before its password is checked, so that parallel guesses gain nothing. There are three counts:
- failures of one account from one network: the first few are free, then each doubles the wait before the next attempt;
- failures from one network on any account: a leaky bucket;
- failures on one account from any network: a leaky bucket, of which networks that have failed on the account before
  may fill only a part, so that they cannot keep out one that has not.

The first two are counted for an IPv6 /64 and for its /48, which one customer of a provider may own. A network from
which the account has signed in before has the first count only, and its /48 none. So has a device on which it has,
with a count of its own instead of its network's.

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
FREE_FAILURES_OF_SITE: Final = 20
"""The same from one IPv6 /48, in which an owner may share a provider's block with others."""
MAX_WAIT: Final = 900
"""Seconds."""
MAX_IN_FLIGHT: Final = 64
"""Attempts of one account from one network whose outcome is open. An honest client may send several at once."""
RETENTION: Final = timedelta(days=1)

_ADDRESSES_WINDOW: Final = 600
"""Seconds in which a network may try as many addresses again as it may at once."""
_SITE_FACTOR: Final = 4
"""An IPv6 /48 may be one customer's, or hold many customers' /64s."""
_HALF: Final = 16
"""Bytes of a key that name the account; as many name the network."""
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
PER_SITE: Final = LeakyBucket("site", capacity=_SITE_FACTOR * 100, interval=3 / _SITE_FACTOR)
PER_ACCOUNT: Final = LeakyBucket("account", capacity=50, interval=10)
_FROM_FAILED_NETWORKS: Final = 30
"""What networks that have failed on the account before may fill of `PER_ACCOUNT`. Otherwise a few of them could keep
it full with a guess every ten seconds, and so keep its owner out of every network that they have not used yet."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What was counted for one attempt whose outcome is open: the keys of its rows."""

    backoff: bytes
    site_backoff: bytes | None
    buckets: tuple[bytes, ...]


def attempt_key(account: str, source: str) -> bytes:
    """Identifies attempts on one account from one network, site or device. All of an account begin alike."""
    return _account_digest(account) + _digest("from", source)[:_HALF]


async def begin_attempt(
    session: AsyncSession, *, account: str, network: str, is_known: bool, device: str | None = None
) -> Attempt:
    """Counts an attempt. `is_known`: the account has signed in from the network before; `device` names one on which it
    has.

    Raises `TooManyAttempts`; the transaction then rolls back and nothing is counted.
    """
    is_known = is_known or device is not None
    site = site_of(network)
    has_site = not is_known and site != network
    backoff = attempt_key(account, f"device {device}" if device is not None else network)
    site_backoff = attempt_key(account, site) if has_site else None
    buckets = {} if is_known else {"network": PER_NETWORK.key(network), "account": PER_ACCOUNT.key(account)}
    if has_site:
        buckets["site"] = PER_SITE.key(site)
    keys = {"backoff": backoff, "site_backoff": site_backoff, "network": None, "site": None, "account": None} | buckets
    counted = (await session.execute(_BEGIN, keys)).one()
    if not counted.backoff or not counted.site_backoff:
        refusing = site_backoff if counted.backoff else backoff
        raise TooManyAttempts(await session.scalar(_WAIT, {"key": refusing}) or 1)
    for bucket in (PER_NETWORK, PER_SITE, PER_ACCOUNT):
        if bucket.name in buckets and not getattr(counted, bucket.name):
            raise TooManyAttempts(bucket.interval)
    return Attempt(backoff, site_backoff, tuple(buckets.values()))


async def end_attempt(session: AsyncSession, attempt: Attempt, *, succeeded: bool) -> None:
    """A failed attempt stays counted. A successful one no longer counts, and resets the account's failures from
    this network.
    """
    for key, free in ((attempt.backoff, FREE_FAILURES), (attempt.site_backoff, FREE_FAILURES_OF_SITE)):
        if key is not None:
            await session.execute(*(_SUCCEEDED, {"key": key}) if succeeded else (_FAILED, {"key": key, "free": free}))
    if succeeded:
        for key in attempt.buckets:
            await session.execute(_LOWER_BUCKET, {"key": key})


async def release_attempt(session: AsyncSession, attempt: Attempt) -> None:
    """For an attempt that neither failed nor succeeded: it no longer counts, and the failures before it still do."""
    for key in filter(None, (attempt.backoff, attempt.site_backoff)):
        await session.execute(_RELEASED, {"key": key})
    for key in attempt.buckets:
        await session.execute(_LOWER_BUCKET, {"key": key})


async def forget_failures(session: AsyncSession, account: str) -> None:
    """Deletes all that is counted for the account, for an owner who has just proved who they are by mail."""
    first = _account_digest(account)
    backoffs = delete(LoginBackoff).where(LoginBackoff.key >= first, LoginBackoff.key <= first + b"\xff" * _HALF)
    await session.execute(backoffs)
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


def count_in_bucket_sql(
    bucket: LeakyBucket, *, key: str | None = None, where: str = "true", capacity: str | None = None
) -> str:
    """The SQL that counts one more in a bucket and returns a row unless it is full.

    `key` and `capacity` are SQL expressions, by default the parameter with the bucket's name, and its own capacity.
    """
    key = key or f":{bucket.name}"
    leaked = f"extract(epoch FROM now() - bucket.updated_at) / {bucket.interval}"
    level = f"greatest(bucket.level - greatest({leaked}, 0), 0) + 1"
    return f"""INSERT INTO login_buckets AS bucket (key, level, updated_at)
        SELECT {key}, 1, now() WHERE {where}
        ON CONFLICT (key) DO UPDATE SET level = {level}, updated_at = now()
        WHERE {level} <= {capacity or bucket.capacity}
        RETURNING true"""


def _count_in_backoff_sql(key: str, *, free: int, where: str) -> str:
    """The SQL that counts one more attempt and returns how many, failed ones included, unless it has to wait.

    Once the free failures are used up, one attempt at a time: when a wait is over, a single attempt is allowed.
    """
    return f"""INSERT INTO login_backoffs AS backoff (key, failures, in_flight, updated_at)
        SELECT CAST({key} AS bytea), 0, 1, now() WHERE {where}
        ON CONFLICT (key) DO UPDATE SET
            failures = backoff.failures + CASE WHEN {_ABANDONED} THEN backoff.in_flight ELSE 0 END,
            in_flight = CASE WHEN {_ABANDONED} THEN 0 ELSE backoff.in_flight END + 1,
            updated_at = now()
        WHERE (backoff.blocked_until IS NULL OR backoff.blocked_until <= now())
          AND ({_ABANDONED}
               OR backoff.in_flight < CASE WHEN backoff.failures < {free} THEN {MAX_IN_FLIGHT} ELSE 1 END)
        RETURNING failures + in_flight AS attempts"""


def _given(name: str) -> str:
    return f"CAST(:{name} AS bytea) IS NOT NULL"


# The statements are built once: a sign-in runs two of them, and building them each time would cost more than they do.

# One statement, so that known and unknown accounts take the same round trips. Each part depends on the one before it,
# so that any two sign-ins lock their rows in the same order. A key that is null is not counted.
_ADMITTED: Final = "EXISTS (SELECT FROM admitted)"
_ATTEMPTS: Final = "(SELECT attempts FROM admitted)"
_BY_NETWORK: Final = "EXISTS (SELECT FROM network)"
_BY_SITE: Final = "EXISTS (SELECT FROM site)"
_NETWORK: Final = count_in_bucket_sql(
    PER_NETWORK, key="CAST(:network AS bytea)", where=f"{_given('network')} AND {_ADMITTED}"
)
_SITE: Final = count_in_bucket_sql(PER_SITE, key="CAST(:site AS bytea)", where=f"{_given('site')} AND {_BY_NETWORK}")
_ACCOUNT: Final = count_in_bucket_sql(
    PER_ACCOUNT,
    key="CAST(:account AS bytea)",
    where=f"{_given('account')} AND {_BY_NETWORK} AND (NOT {_given('site')} OR {_BY_SITE})",
    capacity=f"CASE {_ATTEMPTS} WHEN 1 THEN {PER_ACCOUNT.capacity} ELSE {_FROM_FAILED_NETWORKS} END",
)
_BACKOFF: Final = _count_in_backoff_sql(":backoff", free=FREE_FAILURES, where="true")
_SITE_BACKOFF: Final = _count_in_backoff_sql(
    ":site_backoff",
    free=FREE_FAILURES_OF_SITE,
    where=f"{_given('site_backoff')} AND EXISTS (SELECT FROM backoff)",
)
_BEGIN: Final = text(f"""
    WITH backoff AS ({_BACKOFF}), site_backoff AS ({_SITE_BACKOFF}),
    admitted AS (
        SELECT attempts FROM site_backoff UNION ALL SELECT attempts FROM backoff WHERE NOT {_given("site_backoff")}),
    network AS ({_NETWORK}), site AS ({_SITE}), account AS ({_ACCOUNT})
    SELECT EXISTS (SELECT FROM backoff) AS backoff, {_ADMITTED} AS site_backoff, {_BY_NETWORK} AS network,
           {_BY_SITE} AS site, EXISTS (SELECT FROM account) AS account""")  # noqa: S608
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
        blocked_until = CASE WHEN failures + 1 >= :free THEN now() + interval '1 second'
            * least(2 ^ least(failures + 1 - :free, 16), {MAX_WAIT}) END
    WHERE key = :key""")  # noqa: S608
_RELEASED: Final = text("UPDATE login_backoffs SET in_flight = greatest(in_flight - 1, 0) WHERE key = :key")
_LOWER_BUCKET: Final = text("UPDATE login_buckets SET level = greatest(level - 1, 0) WHERE key = :key")


def _account_digest(account: str) -> bytes:
    return _digest("pairs of", account)[:_HALF]


def _digest(*parts: str) -> bytes:
    return hashlib.sha256("\x1f".join(parts).encode()).digest()
