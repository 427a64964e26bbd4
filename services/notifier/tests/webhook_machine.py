"""A state machine around the webhooks of two persons: what it has done, and what must have come of it."""

import asyncio
from typing import Any
from uuid import UUID

import httpx
from hypothesis.stateful import invariant

from common.db.database import new_id
from common.testing.plugin import eventually
from common.testing.state_machine import AsyncStateMachine, in_loop
from common.testing.token_issuer import TokenIssuer
from notifier.webhooks.handlers import MAX_WEBHOOKS

from .receiver import Receiver, Request
from .webhook_model import UNSETTLED, Delivery, Webhook
from .world import EVENT_TYPES, World, order_data


class WebhookMachine(AsyncStateMachine):
    """Without rules. Each step ends with `quiet`."""

    def __init__(
        self,
        api: httpx.AsyncClient,
        world: World,
        receiver: Receiver,
        issuer: TokenIssuer,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(loop)
        self.api, self.world, self.receiver, self.issuer = api, world, receiver, issuer
        self.people = [new_id(), new_id()]
        self.erased: set[UUID] = set()
        self.webhooks: list[Webhook] = []
        self.events: list[tuple[UUID, str, int, dict[str, Any]]] = []
        self.orders: list[tuple[UUID, UUID, int]] = []
        """Customer, id and version of each."""
        self.seen = len(receiver.requests)

    async def register(self, who: int, types: list[str]) -> None:
        owner, target = self.people[who], f"/{new_id().hex}"
        body = {"url": f"http://{self.receiver.host}{target}", "event_types": types}
        response = await self.call("POST", "/webhooks", owner, json=body)
        if owner in self.erased:
            assert response.status_code == 403
        elif len(self.of(owner)) == MAX_WEBHOOKS:
            assert response.status_code == 409
        else:
            assert response.status_code == 201, response.text
            created = response.json()
            self.webhooks.append(Webhook(UUID(created["id"]), owner, target, types, [created["secret"]]))

    async def next_event(self, index: int) -> None:
        customer, order, version = self.orders[index]
        self.orders[index] = (customer, order, version + 1)
        event_type = EVENT_TYPES[version]
        data = order_data(event_type.split(".")[2], customer, order)
        event_id = await self.world.event(event_type, version=version + 1, **data)
        self.events.append((event_id, event_type, version + 1, data))
        for webhook in self.of(customer):
            if event_type in webhook.types:
                webhook.plan(event_id, Delivery(event_type, data, order, version + 1))
        await self.quiet()

    async def quiet(self) -> None:
        """Waits until every attempt that is due was made and recorded, and looks at what arrived."""

        async def is_quiet() -> bool:
            soon = "SELECT 1 FROM webhook_deliveries WHERE state = 'pending' AND due_at < now() + interval '1000 s'"
            return not await self.world.rows(soon)

        await eventually(is_quiet, within=60)
        arrived, self.seen = self.receiver.requests[self.seen :], len(self.receiver.requests)
        for webhook in self.webhooks:
            requests = [request for request in arrived if request.target == webhook.target]
            for request in requests:
                self.check_signature_and_content(webhook, request)
            came = [(webhook.deliveries[UUID(request.id)].order, UUID(request.id)) for request in requests]
            assert _by_order(came) == _by_order(webhook.requests)
            webhook.requests.clear()
        assert {request.target for request in arrived} <= {webhook.target for webhook in self.webhooks}

    def check_signature_and_content(self, webhook: Webhook, request: Request) -> None:
        delivery = webhook.deliveries[UUID(request.id)]
        assert request.headers["webhook-signature"].count("v1,") == len(webhook.secrets)
        for secret in webhook.secrets:
            event = request.verified(secret)
            assert (event["type"], event["data"]) == (delivery.type, delivery.data)

    @invariant()
    @in_loop
    async def everybody_sees_their_own(self) -> None:
        for owner in self.people:
            listed = (await self.call("GET", "/webhooks?limit=100", owner)).json()["items"]
            assert [UUID(item["id"]) for item in listed] == [webhook.id for webhook in reversed(self.of(owner))]

    async def check_deliveries(self, webhook: Webhook) -> None:
        path = f"/webhooks/{webhook.id}/deliveries?limit=100"
        items = (await self.call("GET", path, webhook.owner)).json()["items"]
        assert [(UUID(i["event_id"]), i["type"], i["state"], i["attempts"]) for i in items] == [
            (event_id, delivery.type, delivery.state, delivery.attempts)
            for event_id, delivery in sorted(webhook.deliveries.items(), reverse=True)
        ]
        assert all((item["settled_at"] is None) == (item["state"] in UNSETTLED) for item in items)
        assert all((item["cause"] is None) == (item["state"] == "sent") or item["state"] == "waiting" for item in items)

    def teardown(self) -> None:
        self.wait(self.every_delivery_is_as_in_the_model())

    async def every_delivery_is_as_in_the_model(self) -> None:
        try:
            for webhook in self.webhooks:
                await self.check_deliveries(webhook)
        finally:
            await self.world.execute("DELETE FROM webhooks")

    async def call(self, method: str, path: str, caller: UUID, **options: Any) -> httpx.Response:
        return await self.api.request(method, path, headers=self.issuer.bearer(caller), **options)

    def of(self, owner: UUID) -> list[Webhook]:
        return [webhook for webhook in self.webhooks if webhook.owner == owner]

    @staticmethod
    def pick(items: list[Any], number: int) -> Any:
        return items[-1 - number % len(items)]


def _by_order(requests: list[tuple[UUID | None, UUID]]) -> list[tuple[UUID | None, UUID]]:
    """Those of an order in their order, as sorting is stable; tests have none."""
    return sorted(requests, key=lambda of: (str(of[0]), "" if of[0] else str(of[1])))
