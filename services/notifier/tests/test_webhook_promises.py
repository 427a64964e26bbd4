"""Random histories of webhooks: each request that arrives, and each delivery listed, is the one that a model gives."""

import asyncio
from datetime import timedelta
from typing import Final
from uuid import UUID

import httpx
import hypothesis.strategies as st
from hypothesis.stateful import initialize, rule

from common.db.database import new_id, utc_now
from common.testing.state_machine import examples, explore, in_loop
from common.testing.token_issuer import TokenIssuer
from notifier.webhooks.models import TEST_TYPE

from .receiver import OK, Receiver, answer
from .webhook_machine import WebhookMachine
from .webhook_model import ATTEMPTS, Delivery
from .world import EVENT_TYPES, World

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


class Webhooks(WebhookMachine):
    @initialize()
    @in_loop
    async def begin(self) -> None:
        for who in (0, 1):
            await self.register(who, list(EVENT_TYPES[:3]))

    @rule(who=WHO, types=st.lists(st.sampled_from(EVENT_TYPES[:3]), min_size=1, max_size=3))
    @in_loop
    async def create(self, who: int, types: list[str]) -> None:
        await self.register(who, types)

    @rule(who=WHO)
    @in_loop
    async def an_order_is_placed(self, who: int) -> None:
        self.orders.append((self.people[who], new_id(), 0))
        await self.next_event(len(self.orders) - 1)

    @rule(number=PICK)
    @in_loop
    async def an_order_changes(self, number: int) -> None:
        open_ones = [index for index, (_, _, version) in enumerate(self.orders) if version < 3]
        if open_ones:
            await self.next_event(self.pick(open_ones, number))

    @rule(number=PICK)
    @in_loop
    async def repeat_an_event(self, number: int) -> None:
        if not self.events:
            return
        event_id, event_type, version, data = self.pick(self.events, number)
        await self.world.event(event_type, event_id=event_id, version=version, **data)
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
            pending = [webhook for webhook in self.webhooks if webhook.attempt_pending()]
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
        webhook.plan(UUID(response.json()["event_id"]), Delivery(TEST_TYPE, {"webhook_id": str(webhook.id)}))
        await self.quiet()

    @rule(number=PICK, enabled=st.booleans())
    @in_loop
    async def disable_or_enable(self, number: int, enabled: bool) -> None:
        if not self.webhooks:
            return
        webhook = self.pick(self.webhooks, number)
        response = await self.call("PATCH", f"/webhooks/{webhook.id}", webhook.owner, json={"enabled": enabled})
        assert response.status_code == 200, response.text
        if enabled:
            webhook.disabled_reason = None
        else:
            webhook.disable("by_owner")
        assert response.json()["disabled_reason"] == webhook.disabled_reason
        await self.quiet()

    @rule(who=WHO)
    @in_loop
    async def a_password_is_reset(self, who: int) -> None:
        await self.world.event("users.user.password_changed.v1", user_id=str(self.people[who]), by="reset")
        for webhook in self.of(self.people[who]):
            webhook.disable("account_recovered")

    @rule(number=PICK, event=PICK)
    @in_loop
    async def resend(self, number: int, event: int) -> None:
        webhook = self.pick(self.webhooks, number) if self.webhooks else None
        if webhook is None or not webhook.deliveries:
            return
        event_id = self.pick(list(webhook.deliveries), event)
        path = f"/webhooks/{webhook.id}/deliveries/{event_id}/resend"
        response = await self.call("POST", path, webhook.owner)
        assert response.status_code == (409 if webhook.disabled_reason else 202), response.text
        if not webhook.disabled_reason and webhook.deliveries[event_id].state != "waiting":
            webhook.send_again([event_id])
        await self.quiet()

    @rule(number=PICK)
    @in_loop
    async def recover(self, number: int) -> None:
        if not self.webhooks:
            return
        webhook = self.pick(self.webhooks, number)
        body = {"since": (utc_now() - timedelta(days=1)).isoformat()}
        response = await self.call("POST", f"/webhooks/{webhook.id}/recover", webhook.owner, json=body)
        assert response.status_code == (409 if webhook.disabled_reason else 202), response.text
        if not webhook.disabled_reason:
            found = [
                event_id
                for event_id, each in webhook.deliveries.items()
                if each.order and each.state in {"failed", "cancelled", "pending"}
            ]
            assert response.json() == {"deliveries": len(found)}
            webhook.send_again(found)
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

    @rule(number=PICK)
    @in_loop
    async def read_the_deliveries(self, number: int) -> None:
        if self.webhooks:
            await self.check_deliveries(self.pick(self.webhooks, number))


@examples(12, 30)
def test_every_history_of_webhooks_is_as_a_plain_model_says(
    delivering_api: httpx.AsyncClient,
    world: World,
    receiver: Receiver,
    issuer: TokenIssuer,
    loop: asyncio.AbstractEventLoop,
    examples: int,
) -> None:
    explore(lambda: Webhooks(delivering_api, world, receiver, issuer, loop), examples=examples)
