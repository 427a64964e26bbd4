"""Webhooks over HTTP, one connection per request."""

import asyncio
import json
import re
from collections.abc import Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpcore
import httpx

from common.db.database import utc_now
from notifier.delivery.errors import Answer, Deferred, Refused
from notifier.webhooks.destinations import BadDestination, Destinations, PublicNetwork, port_of

TIMEOUT: Final = 10.0
"""Seconds for name resolution, connection, request and response together."""
_MAX_RESPONSE: Final = 64 * 1024
"""Bytes of a response that are read: an orderly end for receivers, and a limit to our work."""
_KEPT: Final = 500
"""Bytes of a response that the owner of the webhook can see."""
MAX_RETRY_AFTER: Final = 3600.0
"""Seconds that a receiver can postpone the next attempt by."""
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

    async def send(self, url: str, headers: dict[str, str], body: bytes) -> Answer:
        """Returns a 2xx response. Raises `Refused` or `Deferred`."""
        try:
            target = self._destinations.parse(url)
            answer = await self._post(target, headers, body)
        except BadDestination as error:
            raise Deferred(f"refused: {error}") from None
        except TimeoutError:
            raise Deferred(f"no answer within {TIMEOUT:.0f} s") from None
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
            raise Deferred(f"{type(error).__name__}: {error}") from error
        status = answer.status
        if status == _GONE:
            raise Refused(f"answered {status}", answer=answer)
        if not 200 <= status < 300:
            hint = ", redirects are not followed" if 300 <= status < 400 else ""
            raise Deferred(f"answered {status}{hint}", answer=answer)
        return answer

    async def close(self) -> None:
        await self._pool.aclose()

    async def _post(self, url: httpx.URL, headers: dict[str, str], body: bytes) -> Answer:
        own = {
            "Host": url.netloc.decode("ascii"),
            "Content-Length": str(len(body)),
            "Content-Type": "application/json",
            "User-Agent": "Waybill-Webhooks/1",
            "Connection": "close",
        }
        target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=port_of(url), target=url.raw_path)
        request = httpcore.Request("POST", target, headers=list((own | headers).items()), content=body)
        response: httpcore.Response | None = None
        beginning = bytearray()
        try:
            async with asyncio.timeout(TIMEOUT):
                response = await self._pool.handle_async_request(request)
                try:
                    await _read(response, beginning)
                finally:
                    await response.aclose()
        except (TimeoutError, httpcore.NetworkError, httpcore.ProtocolError):
            if response is None:
                raise
        return Answer(response.status, _text(bytes(beginning)), _retry_after(response.headers))


async def _read(response: httpcore.Response, beginning: bytearray) -> None:
    """Reads the body up to a limit, and adds its first bytes to `beginning`."""
    size = 0
    async for part in response.aiter_stream():
        size += len(part)
        beginning += part[: _KEPT - len(beginning)]
        if size > _MAX_RESPONSE:
            return


def _text(beginning: bytes) -> str:
    """Readable, whatever the bytes are; PostgreSQL can't store NUL."""
    return beginning.decode(errors="replace").replace("\0", "\N{REPLACEMENT CHARACTER}")


def _retry_after(headers: Sequence[tuple[bytes, bytes]]) -> float | None:
    """The seconds of `Retry-After` (RFC 9110 §10.2.3), at most `MAX_RETRY_AFTER`; None without a valid one."""
    [text, *_] = [value.decode("latin-1").strip() for name, value in headers if name.lower() == b"retry-after"] or [""]
    if re.fullmatch(r"[0-9]{1,9}", text):
        seconds = float(text)
    else:
        try:
            seconds = (parsedate_to_datetime(text).astimezone(UTC) - utc_now()).total_seconds()
        except (ValueError, OverflowError):
            return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)


def encode_body(*, event_type: str, timestamp: str, data: dict[str, Any]) -> bytes:
    """The same arguments give the same bytes, so a repeated request differs in its timestamp and signature only."""
    return json.dumps({"type": event_type, "timestamp": timestamp, "data": data}, separators=(",", ":")).encode()
