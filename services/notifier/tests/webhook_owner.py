"""A person or client with a webhook, over HTTP."""

from typing import Any

import httpx

PLACED = "orders.order.placed.v1"


class Owner:
    def __init__(self, api: httpx.AsyncClient, headers: dict[str, str]) -> None:
        self._api = api
        self._headers = headers
        self.id = ""
        self.secret = ""

    async def call(self, method: str, path: str = "", *, status: int = 200, **body: Any) -> Any:
        response = await self._api.request(
            method, f"/webhooks{path}", json=body if method != "GET" and body else None, headers=self._headers
        )
        assert response.status_code == status, response.text
        return response.json() if response.content else None

    async def register(self, url: str, *event_types: str) -> None:
        created = await self.call("POST", status=201, url=url, event_types=event_types or [PLACED])
        self.id, self.secret = f"/{created['id']}", created["secret"]

    async def delivery(self, event_id: Any) -> Any:
        return await self.call("GET", f"{self.id}/deliveries/{event_id}")
