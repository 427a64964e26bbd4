"""Webhooks that are changed, disabled, enabled, recovered, and owned by clients."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx

from common.db.database import new_id, utc_now
from common.testing.plugin import eventually
from common.testing.token_issuer import TokenIssuer
from notifier.webhooks.outcomes import FAILING_FOR

from .receiver import OK, Receiver, answer
from .webhook_owner import PLACED, Owner
from .webhook_waiting import make_due, settled, tried
from .world import World


async def test_a_disabled_webhook_receives_what_happened_only_on_request(
    owner: Owner, me: UUID, world: World, receiver: Receiver
) -> None:
    await owner.register(receiver.url)
    receiver.answers = [answer(500)]
    await world.order("placed", me)
    await eventually(lambda: tried(world, 1))
    disabled = await owner.call("PATCH", owner.id, enabled=False)
    assert (disabled["enabled"], disabled["disabled_reason"]) == (False, "by_owner")
    await world.order("placed", me)
    assert await world.post_states() == ["cancelled", "cancelled"]
    for path, body in (("/recover", {"since": utc_now().isoformat()}), (f"/deliveries/{new_id()}/resend", {})):
        assert (await owner.call("POST", owner.id + path, status=409, **body))["code"] == "webhook_disabled"
    enabled = await owner.call("PATCH", owner.id, enabled=True)
    assert (enabled["enabled"], enabled["disabled_reason"]) == (True, None)
    await world.order("placed", me)
    await eventually(lambda: settled(world, "cancelled", "cancelled", "sent"))
    since = (utc_now() - timedelta(hours=1)).isoformat()
    assert await owner.call("POST", f"{owner.id}/recover", status=202, since=since) == {"deliveries": 2}
    await eventually(lambda: settled(world, "sent", "sent", "sent"))
    posted = [request.id for request in receiver.requests]
    assert len(posted) == 4
    assert set(posted) == {str(post["event_id"]) for post in await world.posts()}
    for request in receiver.requests:
        request.verified(owner.secret)


async def test_recovery_is_of_30_days_and_needs_a_time(owner: Owner, receiver: Receiver) -> None:
    await owner.register(receiver.url)
    too_old = (utc_now() - timedelta(days=30, minutes=1)).isoformat()
    bodies: list[dict[str, Any]] = [{}, {"since": "yesterday"}, {"since": None}, {"since": too_old}]
    for body in bodies:
        await owner.call("POST", f"{owner.id}/recover", status=422, **body)
    await owner.call("POST", f"{owner.id}/recover", status=202, since=(utc_now() - timedelta(days=29)).isoformat())
    bodies = [{"url": None}, {"enabled": None}, {"enabled": "yes"}, {"event_types": []}, {"secret": "mine"}]
    for body in bodies:
        await owner.call("PATCH", owner.id, status=422, **body)
    await owner.call("PATCH", owner.id, status=422, url="https://localhost/")


async def test_a_changed_webhook_is_posted_to_where_it_says_now_and_its_owner_is_notified(
    owner: Owner, me: UUID, world: World, receiver: Receiver
) -> None:
    await owner.register("https://nobody.invalid/secret-path", "orders.order.shipped.v1")
    assert await world.kinds(me) == ["webhook_added"]
    changed = await owner.call("PATCH", owner.id, url=receiver.url, event_types=[PLACED])
    assert (changed["url"], changed["event_types"]) == (receiver.url, [PLACED])
    rows = await world.rows("SELECT data FROM notifications ORDER BY created_at")
    assert [row["data"]["host"] for row in rows] == ["nobody.invalid:443", receiver.host]
    assert "secret-path" not in str(rows)
    await world.order("placed", me)
    await world.order("shipped", me)
    await eventually(lambda: settled(world, "sent"))


async def test_a_webhook_is_disabled_after_five_days_of_failures_alone(
    owner: Owner, me: UUID, world: World, receiver: Receiver
) -> None:
    """A success in between restarts the count, and so does a long time without any attempt."""
    await owner.register(receiver.url)
    for answers, failed_ago, is_disabled in (
        ([answer(500), OK], timedelta(hours=20), False),
        ([answer(500)], timedelta(days=3), False),
        ([answer(500)], timedelta(hours=20), True),
    ):
        receiver.answers = list(answers)
        await world.execute(
            "UPDATE webhooks SET failing_since = now() - CAST(:since AS interval),"
            " last_failed_at = now() - CAST(:ago AS interval)",
            since=FAILING_FOR - timedelta(hours=1) if answers[1:] else FAILING_FOR,
            ago=failed_ago,
        )
        await world.order("placed", me)
        await eventually(lambda: tried_or_settled(world))
        await make_due(world)
        await world.rows("SELECT pg_notify('webhook_deliveries', '')")
        await eventually(lambda: settled_all(world))
        [webhook] = (await owner.call("GET"))["items"]
        assert webhook["enabled"] != is_disabled
        await world.execute("DELETE FROM webhook_deliveries")
    assert webhook["disabled_reason"] == "failing"
    assert await world.kinds(me) == ["order_placed"] * 3 + ["webhook_added", "webhook_disabled"]


async def tried_or_settled(world: World) -> bool:
    return bool(await world.rows("SELECT 1 FROM webhook_deliveries WHERE cause IS NOT NULL OR state = 'sent'"))


async def settled_all(world: World) -> bool:
    return not {"pending", "waiting"} & set(await world.post_states())


async def test_taking_back_an_account_disables_the_webhooks_that_it_had(world: World, me: UUID) -> None:
    """Whoever had the account may have added them. A change of the password by its owner does not."""
    await world.webhook(me)
    await world.webhook(new_id())
    for by in (None, "change"):
        await world.event("users.user.password_changed.v1", user_id=str(me), by=by)
        assert await reasons(world, me) == [None]
    await world.order("placed", me)
    await world.event("users.user.password_changed.v1", user_id=str(me), by="reset")
    assert await reasons(world, me) == ["account_recovered"]
    assert await world.post_states() == ["cancelled"]
    await world.execute("UPDATE webhooks SET enabled = true, disabled_reason = NULL WHERE user_id = :id", id=me)
    await world.event("users.user.email_reverted.v1", user_id=str(me), email="me@example.com")
    assert await reasons(world, me) == ["account_recovered"]
    assert len(await world.rows("SELECT 1 FROM webhooks WHERE enabled")) == 1
    said = await world.rows("SELECT data FROM notifications WHERE kind = 'password_changed' ORDER BY id")
    assert [row["data"] for row in said] == [{}, {}, {"webhooks_disabled": "1"}]


async def reasons(world: World, user_id: UUID) -> list[str | None]:
    rows = await world.rows("SELECT disabled_reason FROM webhooks WHERE user_id = :id", id=user_id)
    return [row["disabled_reason"] for row in rows]


async def test_a_clients_webhook_receives_every_order_is_its_own_and_ends_with_it(
    delivering_api: httpx.AsyncClient, issuer: TokenIssuer, me: UUID, world: World, receiver: Receiver
) -> None:
    def client(name: str, scope: str) -> Owner:
        return Owner(delivering_api, {"Authorization": f"Bearer {issuer.mint_service(name, scope=scope)}"})

    partner, other = (client(name, "webhooks:write") for name in ("client-1", "client-2"))
    reader = client("client-1", "webhooks:read")
    await partner.register(receiver.url, PLACED)
    customers = [me, new_id()]
    for customer_id in customers:
        await world.order("placed", customer_id)
    await eventually(lambda: settled(world, "sent", "sent"))
    events = [request.verified(partner.secret) for request in receiver.requests]
    assert {UUID(event["data"]["customer_id"]) for event in events} == set(customers)
    assert len((await reader.call("GET"))["items"]) == len((await partner.call("GET"))["items"]) == 1
    for stranger in (other, Owner(delivering_api, issuer.bearer(me))):
        assert (await stranger.call("GET"))["items"] == []
        await stranger.call("GET", f"{partner.id}/deliveries", status=404)
    await reader.call("DELETE", partner.id, status=403)
    assert await world.kinds(me) == ["order_placed"], "nobody is notified of a client's webhook"
    revocation: dict[str, Any] = {"subject": "client-1", "min_session_version": 2, "sessions_ended": True}
    await world.event("auth.subject.revoked.v1", **revocation, reason="client_secret_changed")
    assert len((await partner.call("GET"))["items"]) == 1
    await world.event("auth.subject.revoked.v1", **revocation, reason="client_deleted")
    assert (await partner.call("GET"))["items"] == []
    await partner.call("POST", status=403, url=receiver.url, event_types=[PLACED])
    await world.event("auth.subject.revoked.v1", **revocation | {"subject": str(me)}, reason="logout_everywhere")
    await other.register(receiver.url)
