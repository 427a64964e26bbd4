"""The issuer's published keys (RFC 7517 §5), refreshed in the background so that requests do not wait for it."""

import asyncio
import json
import re
import time
from collections.abc import Callable
from typing import Final

import httpx
import structlog
from prometheus_client import Gauge

from common.errors import Unavailable
from common.runtime.background import first_of
from common.runtime.single_flight import SingleFlight
from common.security.verification_keys import UnusableKey, VerificationKey, parse_jwk

log = structlog.get_logger(__name__)

FETCHED: Final = Gauge("waybill_jwks_fetched_timestamp_seconds", "When auth's keys were last fetched; 0 for never.")

_FETCH_TIMEOUT: Final = 3.0
_MAX_BYTES: Final = 65_536
_MAX_AGE: Final = re.compile(r"(?:^|[\s,])max-age=(\d{1,8})")
_DEFAULT_MAX_AGE: Final = 300
_REFRESH_AT: Final = 0.8
_FETCH_INTERVAL: Final = 30.0
"""Seconds between fetches that requests may cause, by an unknown `kid` or an expired key set."""
_MISSING_SECONDS: Final = 300.0
_MAX_MISSING: Final = 1_000
_MAX_PAUSE: Final = 15.0
_WHILE_SETTLING: Final = 1.0
"""Seconds between fetches after a change, while some of the issuer's replicas may still publish the old keys."""


class JwksClient:
    """A `common.security.verification_keys.KeySource` that fetches the key set at `url`.

    `run` fetches the keys again at 80 % of the answer's max-age. While fetches fail, the last good set stays. Without
    `run`, a request starts the fetch once max-age is over, and does not wait for it.

    A `kid` that is not in the set causes a fetch, at most one in 30 s for all requests together. A `kid` that the fetch
    did not find causes none for five minutes, so that a sender of bad tokens cannot keep a new key from being found.

    `settle` is seconds, longer than a replica of the issuer takes to notice a change made by another replica.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        url: str,
        *,
        settle: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http = http
        self._url = url
        self._settle = settle
        self._clock = clock
        self._keys: dict[str, VerificationKey] = {}
        self._max_age = _DEFAULT_MAX_AGE
        self._stale_at = float("-inf")
        self._missing: dict[str, float] = {}
        self._unknown_fetched_at = float("-inf")
        self._changed = asyncio.Event()
        self._settled_at = float("-inf")
        self.refresh = SingleFlight(self._refresh)
        """Fetches now. Raises `Unavailable` and keeps the cached keys where that fails."""

    def cached(self, kid: str) -> VerificationKey | None:
        if self._keys and self._clock() >= self._stale_at:
            self._stale_at = self._clock() + _FETCH_INTERVAL
            self.refresh.start()
        return self._keys.get(kid)

    async def find(self, kid: str) -> VerificationKey | None:
        if key := self.cached(kid):
            return key
        if not self._keys:
            await self.refresh()
            return self._keys.get(kid)
        now = self._clock()
        if self._missing.get(kid, float("-inf")) > now:
            return None
        if not self.refresh.is_running:
            if now < self._unknown_fetched_at + _FETCH_INTERVAL:
                return None
            self._unknown_fetched_at = now
        try:
            await self.refresh()
        except Unavailable:
            return None
        if kid not in self._keys:
            self._remember_missing(kid, now + _MISSING_SECONDS)
        return self._keys.get(kid)

    def keys_changed(self) -> None:
        """Makes `run` fetch the keys now, and every second until all replicas of the issuer publish the new ones."""
        self._settled_at = asyncio.get_running_loop().time() + self._settle
        self._changed.set()

    async def run(self) -> None:
        """Refreshes the keys until cancelled."""
        pause = 0.25
        while True:
            self._changed.clear()
            try:
                await self.refresh()
            except Unavailable:
                await asyncio.sleep(pause)
                pause = min(pause * 2, _MAX_PAUSE)
            else:
                pause = 0.25
                settles_in = self._settled_at - asyncio.get_running_loop().time()
                due = min(settles_in, _WHILE_SETTLING) if settles_in > 0 else self._max_age * _REFRESH_AT
                await first_of(self._changed, within=due)

    def _remember_missing(self, kid: str, until: float) -> None:
        self._missing.pop(kid, None)
        while len(self._missing) >= _MAX_MISSING:
            del self._missing[next(iter(self._missing))]
        self._missing[kid] = until

    async def _refresh(self) -> None:
        try:
            async with asyncio.timeout(_FETCH_TIMEOUT), self._http.stream("GET", self._url) as answer:
                answer.raise_for_status()
                keys = self._parse(await _body(answer))
                max_age = _MAX_AGE.search(answer.headers.get("Cache-Control", ""))
        except (httpx.HTTPError, TimeoutError, ValueError, RecursionError) as error:
            log.warning("signing keys not fetched", error=type(error).__name__, cached=len(self._keys))
            raise Unavailable("The authorization server's keys are unavailable") from error
        if keys.keys() != self._keys.keys():
            log.info("signing keys changed", kids=sorted(keys))
        FETCHED.set_to_current_time()
        self._keys = keys
        self._max_age = min(max(int(max_age[1]), 10), 86_400) if max_age else _DEFAULT_MAX_AGE
        self._stale_at = self._clock() + self._max_age
        for kid in keys.keys() & self._missing.keys():
            del self._missing[kid]

    def _parse(self, body: bytes) -> dict[str, VerificationKey]:
        document = json.loads(body)
        jwks = document.get("keys") if isinstance(document, dict) else None
        keys: dict[str, VerificationKey] = {}
        for jwk in jwks[:100] if isinstance(jwks, list) else []:
            try:
                key = parse_jwk(jwk if isinstance(jwk, dict) else {})
            except UnusableKey:
                continue  # RFC 7517 §5: ignore keys of an unknown type
            known = self._keys.get(key.kid)
            # An unchanged key stays the same object, so that tokens verified with it stay cached.
            keys.setdefault(key.kid, known if known is not None and known.jwk == key.jwk else key)
        if not keys:
            raise ValueError("no usable key")
        return keys


async def _body(answer: httpx.Response) -> bytes:
    body = b""
    async for chunk in answer.aiter_bytes():
        body += chunk
        if len(body) > _MAX_BYTES:
            raise ValueError("key set too large")
    return body
