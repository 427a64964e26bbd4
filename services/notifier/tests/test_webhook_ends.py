"""Webhooks that are disabled or deleted while much waits for them: nobody waits for what is left of them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text

from common.db.database import new_id
from common.testing.plugin import eventually
from common.testing.token_issuer import TokenIssuer
from notifier.settings import Settings
from notifier.webhooks import planning
from notifier.webhooks.ending import end_webhooks
from notifier.webhooks.outcomes import FAILING_FOR

from .delivering import delivering
from .receiver import Receiver, answer
from .webhook_owner import PLACED, Owner
from .webhook_waiting import settled
from .world import World, holds

REVOKED: dict[str, Any] = {"min_session_version": 2, "sessions_ended": True, "reason": "client_deleted"}


@contextlib.asynccontextmanager
async def holding(world: World, webhook_id: UUID | str) -> AsyncIterator[None]:
    """While one of its deliveries is locked, whatever touches all of them waits, as it would with very many."""
    async with world.database.transaction() as session:
        statement = "SELECT FROM webhook_deliveries WHERE webhook_id = :id ORDER BY event_id DESC LIMIT 1 FOR UPDATE"
        await session.execute(text(statement), {"id": webhook_id})
        yield


async def test_a_failing_webhook_with_a_long_queue_stops_no_others(
    world: World, webhook_settings: Settings, receiver: Receiver
) -> None:
    mine, yours = new_id(), new_id()
    failing, _ = await world.webhook(mine, receiver.url + "&failing")
    await world.webhook(yours, receiver.url)
    receiver.answers_at["/hook?source=waybill&failing"] = answer(500)
    await world.execute(
        "UPDATE webhooks SET failing_since = now() - CAST(:since AS interval), last_failed_at = now() WHERE id = :id",
        since=FAILING_FOR,
        id=failing,
    )
    for _ in range(8):
        await world.order("placed", mine)
    async with delivering(webhook_settings):
        async with holding(world, failing):
            await eventually(lambda: is_disabled(world, failing), within=5)
            await world.order("placed", yours)
            await eventually(lambda: has_sent(world), within=5)
        await eventually(lambda: settled(world, *["cancelled"] * 8, "sent"))


async def is_disabled(world: World, webhook_id: UUID) -> bool:
    return bool(await world.rows("SELECT 1 FROM webhooks WHERE id = :id AND NOT enabled", id=webhook_id))


async def has_sent(world: World) -> bool:
    return "sent" in await world.post_states()


async def test_what_is_left_of_a_disabled_webhook_is_not_sent(
    world: World, webhook_settings: Settings, receiver: Receiver
) -> None:
    """An event that is planned while the webhook is being disabled, or the rest of many. A test is sent."""
    webhook_id, _ = await world.webhook(me := new_id(), receiver.url)
    order_id = await world.order("placed", me)
    await world.order("confirmed", me, order_id, version=2)
    test = new_id()
    await world.execute(
        "INSERT INTO webhook_deliveries (webhook_id, event_id, type, host) VALUES (:id, :test, :type, 'x:1')",
        id=webhook_id,
        test=test,
        type="notifier.webhook.test.v1",
    )
    await world.execute("UPDATE webhooks SET enabled = false, disabled_reason = 'by_owner'")
    async with delivering(webhook_settings):
        await eventually(lambda: settled(world, "cancelled", "cancelled", "sent"))
    assert [request.id for request in receiver.requests] == [str(test)]


async def test_a_webhook_is_enabled_only_when_nothing_old_is_left(
    world: World, api: httpx.AsyncClient, issuer: TokenIssuer, me: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "AT_ONCE", 1)
    owner = Owner(api, issuer.bearer(me))
    await owner.register("https://nobody.invalid/", PLACED)
    for _ in range(4):
        await world.order("placed", me)
    assert not (await owner.call("PATCH", owner.id, enabled=False))["enabled"]
    assert (await owner.call("PATCH", owner.id, status=409, enabled=True))["code"] == "webhook_still_ending"
    await end_webhooks(world.database)
    assert await world.post_states() == ["cancelled"] * 4
    assert (await owner.call("PATCH", owner.id, enabled=True))["enabled"]


async def test_a_webhook_is_deleted_at_once_however_much_it_has(
    world: World, api: httpx.AsyncClient, issuer: TokenIssuer, me: UUID, receiver: Receiver
) -> None:
    """By its owner, with its client, and with the person."""
    client_headers = {"Authorization": f"Bearer {issuer.mint_service('client-1', scope='webhooks:write')}"}
    person, client = Owner(api, issuer.bearer(me)), Owner(api, client_headers)
    other = Owner(api, issuer.bearer(you := new_id()))
    for owner in (person, client, other):
        await owner.register("https://nobody.invalid/", PLACED)
    for customer in (me, you):
        await world.order("placed", customer)
    async with contextlib.AsyncExitStack() as held:
        for owner in (person, client, other):
            await held.enter_async_context(holding(world, owner.id[1:]))
        async with asyncio.timeout(5):
            await person.call("DELETE", person.id, status=204)
            await world.event("auth.subject.revoked.v1", subject="client-1", **REVOKED)
            await world.event("users.user.erased.v1", version=2, user_id=str(you))
        for owner in (person, client, other):
            assert (await owner.call("GET"))["items"] == []
            for method, path in (("GET", "/deliveries"), ("DELETE", ""), ("POST", "/test")):
                await owner.call(method, owner.id + path, status=404)
        count = len(await world.posts())
        await world.order("placed", me)
        assert len(await world.posts()) == count
    await end_webhooks(world.database)
    assert await world.posts() == await world.rows("SELECT 1 FROM webhooks") == []


async def test_a_deleted_webhook_is_not_posted_to(
    world: World, webhook_settings: Settings, receiver: Receiver, api: httpx.AsyncClient, issuer: TokenIssuer, me: UUID
) -> None:
    owner = Owner(api, issuer.bearer(me))
    webhook_id, _ = await world.webhook(me, receiver.url)
    await world.order("placed", me)
    await owner.call("DELETE", f"/{webhook_id}", status=204)
    await world.webhook(me, receiver.url + "&second")
    async with delivering(webhook_settings):
        await world.order("placed", me)
        await eventually(lambda: settled(world, "sent"))
        await eventually(lambda: holds(len(receiver.requests) == 1))
    assert "second" in receiver.requests[0].target
