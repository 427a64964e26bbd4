"""Calls from one service to another: with the caller's own access token, tight timeouts and one kind of failure."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

import httpx

from common.errors import Unavailable
from common.observability.log_limit import limited_logger
from common.observability.spans import span
from common.observability.trace import current_request_id
from common.security.service_token import TOTAL_TIMEOUT, ClientCredentials, TokenSource
from common.settings import ClientSettings

log = limited_logger(__name__)

_TIMEOUT: Final = httpx.Timeout(connect=1.0, read=4.0, write=2.0, pool=2.0)


def http_client(transport: httpx.AsyncBaseTransport | None = None) -> httpx.AsyncClient:
    """A client for internal addresses: no proxy, no redirects, one retry only where no connection was established.

    Tests pass a `transport` in place of the peer.
    """
    wire = transport or httpx.AsyncHTTPTransport(retries=1, limits=httpx.Limits(max_connections=50))
    return httpx.AsyncClient(transport=_Traced(wire), timeout=_TIMEOUT, trust_env=False)


class _Traced(httpx.AsyncBaseTransport):
    """Records each call as a span, which ends with the answer's headers, and sends it to the peer as `traceparent`."""

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


class ServiceClient:
    """Calls another service's internal endpoints. Every failure to get an answer is `Unavailable`."""

    def __init__(self, http: httpx.AsyncClient, base_url: str, tokens: TokenSource) -> None:
        self._http = http
        self._base_url = base_url
        self._tokens = tokens

    async def get(self, path: str) -> httpx.Response:
        return await self.request("GET", path)

    async def post(self, path: str, *, json: Any = None) -> httpx.Response:
        return await self.request("POST", path, json=json)

    async def request(self, method: str, path: str, *, json: Any = None) -> httpx.Response:
        """The answer, whatever its status below 500.

        Raises `Unavailable`, with the peer's `Retry-After`, for 5xx and where the peer refuses our token even after it
        was renewed.
        """
        token = await self._tokens.token()
        answer = await self._send(method, path, json, token)
        if _refuses_token(answer):
            # The token was valid a moment ago, so keys or secrets were replaced in an emergency.
            self._tokens.forget(token)
            answer = await self._send(method, path, json, await self._tokens.token())
        if answer.status_code >= 500 or _refuses_token(answer):
            log.warning("service call failed", url=self._base_url, path=path, status=answer.status_code)
            retry_after = answer.headers.get("Retry-After")
            raise Unavailable(headers={"Retry-After": retry_after} if retry_after else None)
        return answer

    async def _send(self, method: str, path: str, json: Any, token: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"}
        if request_id := current_request_id():
            headers["X-Request-ID"] = request_id
        try:
            async with asyncio.timeout(TOTAL_TIMEOUT):
                return await self._http.request(method, f"{self._base_url}{path}", json=json, headers=headers)
        except (httpx.HTTPError, TimeoutError) as error:
            log.warning("service unavailable", url=self._base_url, path=path, error=type(error).__name__)
            raise Unavailable from error


def _refuses_token(answer: httpx.Response) -> bool:
    return answer.status_code == 401 and 'error="invalid_token"' in answer.headers.get("WWW-Authenticate", "")


@contextlib.asynccontextmanager
async def service_client(
    settings: ClientSettings, *, base_url: str, scope: str, resource: str | None = None
) -> AsyncIterator[ServiceClient]:
    """A client of another service for the length of the block, usually a lifespan.

    `scope` is what the calls need, `resource` the token's only audience (RFC 8707), such as
    `common.settings.resource("users")`.
    """
    async with http_client() as http:
        tokens = ClientCredentials(http, settings, scope=scope, resource=resource)
        try:
            yield ServiceClient(http, base_url, tokens)
        finally:
            await tokens.close()
