"""Webhooks over HTTP, one connection per request."""

import asyncio
import json
from typing import Any, Final

import httpcore
import httpx

from notifier.delivery.errors import Deferred, Refused
from notifier.webhooks.destinations import BadDestination, Destinations, PublicNetwork, port_of

TIMEOUT: Final = 10.0
"""Seconds for name resolution, connection, request and response together."""
_MAX_RESPONSE: Final = 64 * 1024
"""Bytes of a response that are read and discarded: an orderly end for receivers, and a limit to our work."""
_GONE: Final = 410


class WebhookChannel:
    """Posts to one URL per call. Does not follow redirects, since their targets were not checked."""

    def __init__(self, destinations: Destinations, *, connections: int) -> None:
        self._destinations = destinations
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=httpx.create_ssl_context(),
            network_backend=PublicNetwork(destinations),
            max_connections=connections,
            max_keepalive_connections=0,
        )

    async def send(self, url: str, headers: dict[str, str], body: bytes) -> None:
        """Returns after a 2xx response. Raises `Refused` or `Deferred`."""
        try:
            target = self._destinations.parse(url)
            status = await self._post(target, headers, body)
        except BadDestination as error:
            raise Deferred(f"refused: {error}") from None
        except TimeoutError:
            raise Deferred(f"no answer within {TIMEOUT:.0f} s") from None
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
            raise Deferred(f"{type(error).__name__}: {error}") from error
        if status == _GONE:
            raise Refused(f"answered {status}")
        if not 200 <= status < 300:
            raise Deferred(f"answered {status}" + (", redirects are not followed" if 300 <= status < 400 else ""))

    async def close(self) -> None:
        await self._pool.aclose()

    async def _post(self, url: httpx.URL, headers: dict[str, str], body: bytes) -> int:
        own = {
            "Host": url.netloc.decode("ascii"),
            "Content-Length": str(len(body)),
            "Content-Type": "application/json",
            "User-Agent": "Waybill-Webhooks/1",
            "Connection": "close",
        }
        target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=port_of(url), target=url.raw_path)
        request = httpcore.Request("POST", target, headers=list((own | headers).items()), content=body)
        status = None
        try:
            async with asyncio.timeout(TIMEOUT):
                response = await self._pool.handle_async_request(request)
                status = response.status
                try:
                    await _discard(response)
                finally:
                    await response.aclose()
        except (TimeoutError, httpcore.NetworkError, httpcore.ProtocolError):
            if status is None:
                raise
        return status


async def _discard(response: httpcore.Response) -> None:
    size = 0
    async for part in response.aiter_stream():
        size += len(part)
        if size > _MAX_RESPONSE:
            return


def encode_body(*, event_type: str, timestamp: str, data: dict[str, Any]) -> bytes:
    """The same arguments give the same bytes, so a repeated request differs in its timestamp and signature only."""
    return json.dumps({"type": event_type, "timestamp": timestamp, "data": data}, separators=(",", ":")).encode()
