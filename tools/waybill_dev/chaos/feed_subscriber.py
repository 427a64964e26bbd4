"""A subscriber over HTTP: pages that wait, and streams, in turn, from its last event on."""

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from typing import Any

import httpx

from waybill_dev.errors import LocalError

STREAM_SECONDS = 20.0
"""How long it follows one stream before it reads pages again."""
SCOPE = "events:read"


@dataclass
class FeedSubscriber:
    """`received` has (order, version) of each event in the order of arrival. None may come twice or be missing."""

    gateway: str
    admin: dict[str, str]
    received: list[tuple[str, int]] = field(default_factory=list)
    _client: dict[str, str] = field(default_factory=dict)
    _last: str | None = None

    async def begin(self) -> None:
        """Registers a client. From then on no event is missed."""
        async with self._http() as http:
            form = {"grant_type": "password", "username": self.admin["email"], "password": self.admin["password"]}
            token = (await http.post("/token", data=form)).raise_for_status().json()["access_token"]
            body = {"name": "chaos", "grant_types": ["client_credentials"], "scopes": [SCOPE]}
            bearer = {"Authorization": f"Bearer {token}"}
            created = (await http.post("/clients", json=body, headers=bearer)).raise_for_status().json()
            self._client = {"client_id": created["client_id"], "client_secret": created["client_secret"]}
            latest = await http.get("/events", params={"from": "latest"}, headers=await self._bearer(http))
            latest.raise_for_status()
            self._last = httpx.URL(latest.links["next"]["url"]).params.get("after")

    async def listen(self) -> None:
        """Receives until it is cancelled. Reconnects after every failure."""
        while True:
            with contextlib.suppress(httpx.HTTPError, KeyError, TimeoutError):
                async with self._http() as http:
                    bearer = await self._bearer(http)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(STREAM_SECONDS):
                            await self._stream(http, bearer)
                    await self._page(http, bearer)
            await asyncio.sleep(0.2)

    def _http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.gateway, timeout=40)

    async def _bearer(self, http: httpx.AsyncClient) -> dict[str, str]:
        form = {"grant_type": "client_credentials", "scope": SCOPE, **self._client}
        answer = (await http.post("/token", data=form)).raise_for_status()
        return {"Authorization": f"Bearer {answer.json()['access_token']}"}

    async def _page(self, http: httpx.AsyncClient, bearer: dict[str, str]) -> None:
        params = {"limit": "1000", "wait": "1", **({"after": self._last} if self._last else {})}
        answer = await http.get("/events", params=params, headers=bearer)
        self._check(answer)
        for event in answer.json():
            self._take(event)

    async def _stream(self, http: httpx.AsyncClient, bearer: dict[str, str]) -> None:
        if self._last is None:  # a stream without a last event would begin now
            return
        headers = {**bearer, "Last-Event-ID": self._last}
        async with http.stream("GET", "/events/stream", headers=headers) as answer:
            self._check(answer)
            name = ""
            async for line in answer.aiter_lines():
                kind, _, value = line.partition(": ")
                if kind == "event":
                    name = value
                elif kind == "data" and name != "end":
                    self._take(json.loads(value))

    @staticmethod
    def _check(answer: httpx.Response) -> None:
        if answer.status_code == 410:
            raise LocalError("the feed does not know an event that it has sent")
        answer.raise_for_status()

    def _take(self, event: dict[str, Any]) -> None:
        self.received.append((event["subject"], event["aggregateversion"]))
        self._last = event["id"]
