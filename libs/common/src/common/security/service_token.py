"""A service's own access token, by the client-credentials grant (RFC 6749 §4.4)."""

import asyncio
import time
from collections.abc import Callable
from typing import Final, Protocol
from urllib.parse import quote_plus

import httpx
import structlog

from common.errors import Unavailable
from common.runtime.single_flight import SingleFlight
from common.settings import ClientSettings

log = structlog.get_logger(__name__)

TOTAL_TIMEOUT: Final = 6.0
"""Seconds for one call between services, from the connection to the last byte of the answer."""
_RENEW_AT: Final = 0.8
"""Share of a token's lifetime after which it is renewed."""


class TokenSource(Protocol):
    """Supplies the access token for calls to other services."""

    async def token(self) -> str:
        """A token that stays valid for the length of a call. Raises `Unavailable`."""
        ...

    def forget(self, token: str) -> None:
        """Discards `token`, which a service refused: the next one is new."""
        ...


class ClientCredentials:
    """A `TokenSource` that fetches one token from auth and shares it between all callers.

    The token is renewed in the background from 80 % of its lifetime on. A failed renewal affects no caller until the
    token expires.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        settings: ClientSettings,
        *,
        scope: str,
        resource: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http = http
        self._url = f"{settings.auth_url}/token"
        # RFC 6749 §2.3.1: both are form-encoded before they become Basic credentials.
        self._auth = httpx.BasicAuth(
            quote_plus(settings.service), quote_plus(settings.client_secret.get_secret_value())
        )
        self._form = {"grant_type": "client_credentials", "scope": scope}
        if resource is not None:
            self._form["resource"] = resource
        self._clock = clock
        self._token = ""
        self._renew_at = self._usable_until = float("-inf")
        self._renewal = SingleFlight(self._renew)

    async def token(self) -> str:
        now = self._clock()
        if now >= self._usable_until:
            await self._renewal()
        elif now >= self._renew_at:
            self._renewal.start()
        return self._token

    def forget(self, token: str) -> None:
        if token == self._token:
            self._usable_until = float("-inf")

    async def _renew(self) -> None:
        requested_at = self._clock()
        try:
            async with asyncio.timeout(TOTAL_TIMEOUT):
                answer = await self._http.post(self._url, data=self._form, auth=self._auth)
            answer.raise_for_status()
            body = answer.json()
            token, lifetime = str(body["access_token"]), float(body["expires_in"])
        except (httpx.HTTPError, TimeoutError, ValueError, KeyError, TypeError) as error:
            status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else None
            log.warning("service token not fetched", error=type(error).__name__, status=status)
            raise Unavailable("The authorization server is unavailable") from error
        self._token = token
        self._renew_at = requested_at + lifetime * _RENEW_AT
        self._usable_until = requested_at + lifetime - min(10.0, lifetime * 0.1)

    async def close(self) -> None:
        await self._renewal.close()
