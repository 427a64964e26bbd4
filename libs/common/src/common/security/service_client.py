"""Calls from one service to another: own access token, tight time-outs, one kind of failure."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, Protocol
from urllib.parse import quote_plus

import httpx
import structlog
from pydantic import SecretStr

from common.errors import Unavailable
from common.observability.logs import current_request_id
from common.observability.spans import span
from common.runtime.single_flight import SingleFlight

log = structlog.get_logger(__name__)

TIMEOUT: Final = httpx.Timeout(connect=1.0, read=4.0, write=2.0, pool=2.0)
_TOTAL: Final = 6.0
_RENEW_AT: Final = 0.8
"""Share of a token's lifetime after which a new one is fetched."""


class TokenSource(Protocol):
    """Where a caller's own access token comes from."""

    async def token(self) -> str:
        """A token that is good for some time yet. Raises `Unavailable`."""
        ...

    def forget(self, token: str) -> None:
        """The token was refused: the next one must be new."""
        ...


class ClientSettings(Protocol):
    """What a service knows as an OAuth client of auth."""

    @property
    def service(self) -> str: ...
    @property
    def auth_url(self) -> str: ...
    @property
    def client_secret(self) -> SecretStr: ...


def http_client(transport: httpx.AsyncBaseTransport | None = None) -> httpx.AsyncClient:
    """A client for addresses of our own: no proxy, no redirects, a second try only where no connection was made.

    Tests give a `transport` to stand in for the other side.
    """
    wire = transport or httpx.AsyncHTTPTransport(retries=1, limits=httpx.Limits(max_connections=50))
    return httpx.AsyncClient(
        transport=_Traced(wire),
        timeout=TIMEOUT,
        trust_env=False,
    )


class _Traced(httpx.AsyncBaseTransport):
    """Makes each call a span, from the request to the answer's head, and names it to the other side as its parent."""

    def __init__(self, wire: httpx.AsyncBaseTransport) -> None:
        self._wire = wire

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        attributes: dict[str, str | int] = {
            "http.request.method": request.method,
            "server.address": url.host,
            "server.port": url.port or (443 if url.scheme == "https" else 80),
            "url.full": str(url.copy_with(userinfo=b"", query=None, fragment=None)),
        }
        with span(request.method, "client", attributes) as call:
            if call.traceparent is not None:
                request.headers["traceparent"] = call.traceparent
            answer = await self._wire.handle_async_request(request)
            call.note({"http.response.status_code": answer.status_code})
            if answer.status_code >= 400:
                call.fail(str(answer.status_code))
            return answer

    async def aclose(self) -> None:
        await self._wire.aclose()


class ClientCredentials:
    """The service's own token, by the client-credentials grant (RFC 6749 §4.4), fetched once for all who ask.

    Renewed in the background from 80 % of its lifetime on; until it runs out, a failed renewal disturbs nobody.
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
        asked_at = self._clock()
        try:
            async with asyncio.timeout(_TOTAL):
                answer = await self._http.post(self._url, data=self._form, auth=self._auth)
            answer.raise_for_status()
            body = answer.json()
            token, lifetime = str(body["access_token"]), float(body["expires_in"])
        except (httpx.HTTPError, TimeoutError, ValueError, KeyError, TypeError) as error:
            status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else None
            log.warning("no service token", error=type(error).__name__, status=status)
            raise Unavailable("The authorization server is away") from error
        self._token = token
        self._renew_at = asked_at + lifetime * _RENEW_AT
        self._usable_until = asked_at + lifetime - min(10.0, lifetime * 0.1)

    async def close(self) -> None:
        await self._renewal.close()


class ServiceClient:
    """Another service's internal endpoints. Every failure to get an answer is `Unavailable`."""

    def __init__(self, http: httpx.AsyncClient, base_url: str, tokens: TokenSource) -> None:
        self._http = http
        self._base_url = base_url
        self._tokens = tokens

    async def get(self, path: str) -> httpx.Response:
        return await self.request("GET", path)

    async def post(self, path: str, *, json: Any = None) -> httpx.Response:
        return await self.request("POST", path, json=json)

    async def request(self, method: str, path: str, *, json: Any = None) -> httpx.Response:
        """The answer, whatever its status below 500, unless it refuses our token. Raises `Unavailable` otherwise, with
        the peer's `Retry-After`.
        """
        token = await self._tokens.token()
        answer = await self._send(method, path, json, token)
        if _refuses_token(answer):
            # A token that was good a moment ago: keys or secrets were changed in an emergency.
            self._tokens.forget(token)
            answer = await self._send(method, path, json, await self._tokens.token())
        if answer.status_code >= 500 or _refuses_token(answer):
            log.warning("another service failed", url=self._base_url, path=path, status=answer.status_code)
            retry_after = answer.headers.get("Retry-After")
            raise Unavailable(headers={"Retry-After": retry_after} if retry_after else None)
        return answer

    async def _send(self, method: str, path: str, json: Any, token: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"}
        if request_id := current_request_id():
            headers["X-Request-ID"] = request_id
        try:
            async with asyncio.timeout(_TOTAL):
                return await self._http.request(method, f"{self._base_url}{path}", json=json, headers=headers)
        except (httpx.HTTPError, TimeoutError) as error:
            log.warning("another service is away", url=self._base_url, path=path, error=type(error).__name__)
            raise Unavailable from error


def _refuses_token(answer: httpx.Response) -> bool:
    return answer.status_code == 401 and 'error="invalid_token"' in answer.headers.get("WWW-Authenticate", "")


@contextlib.asynccontextmanager
async def service_client(
    settings: ClientSettings, *, base_url: str, scope: str, resource: str | None = None
) -> AsyncIterator[ServiceClient]:
    """Another service as this one's lifespan keeps it.

    `scope` is what the calls need, `resource` the only audience of the token (RFC 8707), as in
    `common.settings.resource("users")`.
    """
    async with http_client() as http:
        tokens = ClientCredentials(http, settings, scope=scope, resource=resource)
        try:
            yield ServiceClient(http, base_url, tokens)
        finally:
            await tokens.close()
