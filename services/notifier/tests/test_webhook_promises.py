"""Random histories of webhooks: each request that arrives, and each delivery listed, is the one that a model gives."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final
from uuid import UUID

import httpx
import hypothesis.strategies as st
import pytest
from hypothesis.stateful import initialize, invariant, rule

from common.db.database import new_id
from common.runtime.health import Health
from common.testing.api_client import api_client
from common.testing.plugin import eventually
from common.testing.state_machine import AsyncStateMachine, examples, explore, in_loop
from common.testing.token_issuer import TokenIssuer
from notifier.app import create_app
from notifier.models import TEST_TYPE
from notifier.settings import Settings
from notifier.webhooks.handlers import MAX_WEBHOOKS

from .receiver import OK, Receiver, Request, answer
from .test_delivery import delivering
from .webhook_model import ATTEMPTS, Delivery, Webhook
from .world import EVENT_TYPES, World, order_data

WHO: Final = st.integers(0, 1)
PICK: Final = st.integers(0, 5)
"""Of the webhooks or events, from the newest."""
ANSWERS: Final = {
    "taken": OK,
    "500": answer(500),
    "429": answer(429),
    "redirected": answer(307, "Location: http://127.0.0.1:1/"),
    "no response": b"",
    "gone": answer(410),
}


class Webhooks(AsyncStateMachine):
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
        self.events: list[tuple[UUID, str, dict[str, Any]]] = []
        self.expected: list[tuple[str, UUID]] = []
        """Target and event of each request that must arrive."""
        self.seen = len(receiver.requests)

    @initialize()
    @in_loop
    async def begin(self) -> None:
        for who in (0, 1):
            await self.register(who, list(EVENT_TYPES[:3]))

    @rule(who=WHO, types=st.lists(st.sampled_from(EVENT_TYPES[:3]), min_size=1, max_size=3))
    @in_loop
    async def create(self, who: int, types: list[str]) -> None:
        await self.register(who, types)

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

    @rule(of=st.tuples(WHO, st.sampled_from(EVENT_TYPES[:3])))
    @in_loop
    async def an_order_changes(self, of: tuple[int, str]) -> None:
        who, event_type = of
        customer, state = self.people[who], event_type.split(".")[2]
        data = order_data(state, customer, new_id())
        event_id = await self.world.event(event_type, **data)
        self.events.append((event_id, event_type, data))
        for webhook in self.of(customer):
            if event_type in webhook.types:
                self.plan(webhook, event_id, event_type, data)
        await self.quiet()

    @rule(number=PICK)
    @in_loop
    async def repeat_an_event(self, number: int) -> None:
        if not self.events:
            return
        event_id, event_type, data = self.pick(self.events, number)
        await self.world.event(event_type, event_id=event_id, **data)
        await self.quiet()

    @rule(number=PICK, answer=st.sampled_from([*ANSWERS, "taken", "500"]))
    def the_receiver_changes(self, number: int, answer: str) -> None:
        if not self.webhooks:
            return
        webhook = self.pick(self.webhooks, number)
        webhook.answer = answer
        self.receiver.answers_at[webhook.target] = ANSWERS[answer]

    @rule(times=st.sampled_from([1, 1, 2, ATTEMPTS]))
    @in_loop
    async def time_passes(self, times: int) -> None:
        for _ in range(times):
            pending = [webhook for webhook in self.webhooks if self.attempt_all(webhook)]
            if not pending:
                return
            await self.world.rows(
                "WITH due AS (UPDATE webhook_deliveries SET due_at = now() WHERE state = 'pending' RETURNING 1)"
                " SELECT pg_notify('webhook_deliveries', '') FROM due"
            )
            await self.quiet()

    @rule(number=PICK)
    @in_loop
    async def test(self, number: int) -> None:
        if not self.webhooks:
            return
        webhook = self.pick(self.webhooks, number)
        if sum(delivery.type == TEST_TYPE for delivery in webhook.deliveries.values()) >= 9:
            return  # limited to ten a minute
        response = await self.call("POST", f"/webhooks/{webhook.id}/test", webhook.owner)
        assert response.status_code == 202, response.text
        self.plan(webhook, UUID(response.json()["event_id"]), TEST_TYPE, {"webhook_id": str(webhook.id)})
        await self.quiet()

    @rule(number=PICK)
    @in_loop
    async def replace_the_secret(self, number: int) -> None:
        if not self.webhooks:
            return
        webhook = self.pick(self.webhooks, number)
        response = await self.call("POST", f"/webhooks/{webhook.id}/secret", webhook.owner)
        assert response.status_code == 201, response.text
        webhook.secrets = [response.json()["secret"], webhook.secrets[0]]

    @rule(number=PICK)
    @in_loop
    async def delete(self, number: int) -> None:
        if not self.webhooks:
            return
        webhook = self.pick(self.webhooks, number)
        for status in (204, 404):
            assert (await self.call("DELETE", f"/webhooks/{webhook.id}", webhook.owner)).status_code == status
        self.webhooks.remove(webhook)

    @rule(
        number=PICK,
        operation=st.sampled_from([("DELETE", ""), ("POST", "/test"), ("POST", "/secret"), ("GET", "/deliveries")]),
    )
    @in_loop
    async def a_stranger_calls(self, number: int, operation: tuple[str, str]) -> None:
        if not self.webhooks:
            return
        webhook = self.pick(self.webhooks, number)
        method, path = operation
        [stranger] = set(self.people) - {webhook.owner}
        assert (await self.call(method, f"/webhooks/{webhook.id}{path}", stranger)).status_code == 404

    @rule(who=st.sampled_from([1]), is_wanted=st.sampled_from([True, False, False, False]))
    @in_loop
    async def a_person_is_erased(self, who: int, is_wanted: bool) -> None:
        if is_wanted:
            await self.world.event("users.user.erased.v1", version=9, user_id=str(self.people[who]))
            self.erased.add(self.people[who])
            self.webhooks = [webhook for webhook in self.webhooks if webhook.owner != self.people[who]]

    def plan(self, webhook: Webhook, event_id: UUID, event_type: str, data: dict[str, Any]) -> None:
        webhook.deliveries[event_id] = Delivery(event_type, data)
        self.attempt(webhook, event_id)

    def attempt_all(self, webhook: Webhook) -> bool:
        pending = [key for key, delivery in webhook.deliveries.items() if delivery.state == "pending"]
        for event_id in pending:
            self.attempt(webhook, event_id)
        return bool(pending)

    def attempt(self, webhook: Webhook, event_id: UUID) -> None:
        webhook.deliveries[event_id].attempt(webhook.answer)
        self.expected.append((webhook.target, event_id))

    async def quiet(self) -> None:
        """Waits until every attempt that is due was made and recorded, and looks at what arrived."""

        async def is_quiet() -> bool:
            soon = "SELECT 1 FROM webhook_deliveries WHERE state = 'pending' AND due_at < now() + interval '1000 s'"
            return not await self.world.rows(soon)

        await eventually(is_quiet, within=60)
        arrived, self.seen = self.receiver.requests[self.seen :], len(self.receiver.requests)
        assert sorted((request.target, UUID(request.id)) for request in arrived) == sorted(self.expected)
        self.expected = []
        for request in arrived:
            self.check_signature_and_content(request)

    def check_signature_and_content(self, request: Request) -> None:
        [webhook] = [webhook for webhook in self.webhooks if webhook.target == request.target]
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

    @rule(number=PICK)
    @in_loop
    async def read_the_deliveries(self, number: int) -> None:
        if self.webhooks:
            await self.check_deliveries(self.pick(self.webhooks, number))

    async def check_deliveries(self, webhook: Webhook) -> None:
        path = f"/webhooks/{webhook.id}/deliveries?limit=100"
        items = (await self.call("GET", path, webhook.owner)).json()["items"]
        assert [(UUID(i["event_id"]), i["type"], i["state"], i["attempts"]) for i in items] == [
            (event_id, delivery.type, delivery.state, delivery.attempts)
            for event_id, delivery in sorted(webhook.deliveries.items(), reverse=True)
        ]
        assert all((item["settled_at"] is None) == (item["state"] == "pending") for item in items)
        assert all((item["cause"] is None) == (item["state"] == "sent") for item in items)

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


@pytest.fixture
async def delivering_api(webhook_settings: Settings, issuer: TokenIssuer) -> AsyncIterator[httpx.AsyncClient]:
    """An API whose webhooks are delivered."""
    app = create_app(webhook_settings, Health(), tokens=issuer.verifier("notifier"))
    async with delivering(webhook_settings), api_client(app) as client:
        yield client


@examples(12, 40)
def test_every_history_of_webhooks_is_as_a_plain_model_says(
    delivering_api: httpx.AsyncClient,
    world: World,
    receiver: Receiver,
    issuer: TokenIssuer,
    loop: asyncio.AbstractEventLoop,
    examples: int,
) -> None:
    explore(lambda: Webhooks(delivering_api, world, receiver, issuer, loop), examples=examples)
