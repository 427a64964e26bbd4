"""Nobody's slow receivers delay another person's webhook."""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import text

from common.db.database import new_id
from common.testing.plugin import eventually
from notifier.settings import Settings
from notifier.webhooks import claims
from notifier.webhooks.claims import ClaimedWebhookDelivery, Shares, claim_deliveries
from notifier.webhooks.handlers import MAX_WEBHOOKS

from .delivering import delivering
from .receiver import Receiver, receiving
from .webhook_waiting import allowing
from .world import World, holds

SLOTS = 32
SHARES = Shares.of(SLOTS)


@asynccontextmanager
async def silent_receivers(count: int) -> AsyncIterator[list[Receiver]]:
    """Receivers that accept requests and never answer."""
    async with AsyncExitStack() as stack:
        receivers = [await stack.enter_async_context(receiving()) for _ in range(count)]
        for receiver in receivers:
            receiver.answers_now.clear()
        yield receivers


@pytest.mark.parametrize(("accounts", "orders"), [(3, 10), (1, 60)])
async def test_accounts_with_many_hosts_that_never_answer_delay_nobody_else(
    world: World, webhook_settings: Settings, receiver: Receiver, accounts: int, orders: int
) -> None:
    """The other person's first event arrives while no request of these accounts has ended."""
    user_id = new_id()
    await world.webhook(user_id, receiver.url)
    async with silent_receivers(accounts * MAX_WEBHOOKS) as silent:
        for account in range(accounts):
            slow_id = new_id()
            for slow in silent[account * MAX_WEBHOOKS : (account + 1) * MAX_WEBHOOKS]:
                await world.webhook(slow_id, slow.url)
            for _ in range(orders):
                await world.order("placed", slow_id)
        async with delivering(allowing(webhook_settings, *silent)):
            await eventually(lambda: holds(sent_to(silent) == accounts * SHARES.per_owner))
            await world.order("placed", user_id)
            await eventually(lambda: holds(len(receiver.requests) == 1))
            assert sent_to(silent) == accounts * SHARES.per_owner
            assert not any(slow.answered for slow in silent)
            for slow in silent:
                await slow.close()
            await world.execute("DELETE FROM webhooks")


async def read_by_a_claim(world: World) -> int:
    """How many blocks of tables and indexes it reads."""
    values = claims._values(limit=SLOTS, shares=SHARES, sending=(), lease=timedelta(minutes=5))
    async with world.database.transaction() as session:
        explain = text(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {claims._CLAIM.text}")
        [found] = (await session.scalars(explain, values)).one()
    return int(found["Plan"]["Shared Hit Blocks"] + found["Plan"]["Shared Read Blocks"])


def sent_to(receivers: Sequence[Receiver]) -> int:
    return sum(len(receiver.requests) for receiver in receivers)


async def claimed(world: World, *sending: ClaimedWebhookDelivery, limit: int = SLOTS) -> list[ClaimedWebhookDelivery]:
    """What a deliverer claims while it is sending these."""
    async with world.database.transaction() as session:
        return await claim_deliveries(
            session,
            limit=min(limit, SLOTS - len(sending)),
            shares=SHARES,
            sending=sending,
            lease=timedelta(minutes=5),
        )


async def customer(world: World, *, hosts: int = 1, orders: int = 6) -> UUID:
    """Somebody with a webhook on each of so many hosts, and orders."""
    owner = new_id()
    for _ in range(hosts):
        await world.webhook(owner, f"https://{new_id().hex}.example/")
    for _ in range(orders):
        await world.order("placed", owner)
    return owner


async def test_each_owner_and_each_host_gets_its_share(world: World) -> None:
    many = await customer(world, hosts=5)
    few = await customer(world)
    first = await claimed(world)
    assert Counter(claim.owner for claim in first) == {str(many): SHARES.per_owner, str(few): SHARES.per_owner}
    assert max(Counter(claim.host for claim in first).values()) <= SHARES.per_host
    assert await claimed(world, *first) == [], "both have their share"
    assert {claim.owner for claim in await claimed(world, *first[1:])} == {first[0].owner}


async def test_a_host_that_is_busy_does_not_use_up_its_owners_share(world: World) -> None:
    owner = new_id()
    await world.webhook(owner, "https://slow.example/", event_types=["orders.order.placed.v1"])
    await world.webhook(owner, "https://quick.example/", event_types=["orders.order.shipped.v1"])
    for _ in range(3 * SHARES.per_host):
        await world.order("placed", owner)
    await world.order("shipped", owner)
    await world.execute("UPDATE webhooks SET is_answering = host LIKE 'quick%'")
    slow = [claim for claim in await claimed(world) if claim.host.startswith("slow")]
    assert len(slow) == SHARES.per_host
    await world.execute("UPDATE webhook_deliveries SET due_at = now() WHERE type LIKE '%shipped%'")
    assert [claim.host for claim in await claimed(world, *slow)] == ["quick.example:443"]


async def test_slots_are_reserved_for_webhooks_that_are_answering(world: World) -> None:
    """However many accounts somebody registers."""
    for _ in range(SLOTS // SHARES.per_owner + 2):
        await customer(world)
    failing = await claimed(world)
    assert len(failing) == SHARES.unproven < SLOTS
    proven = await customer(world)
    await world.execute("UPDATE webhooks SET is_answering = true WHERE user_id = :id", id=proven)
    assert Counter(claim.owner for claim in await claimed(world, *failing)) == {str(proven): SHARES.per_owner}


async def test_first_attempts_go_before_retries_unless_these_are_late(world: World) -> None:
    late = (
        "UPDATE webhook_deliveries SET is_retry = true, due_at = now() - make_interval(secs => :s) WHERE attempts = 0"
    )
    retrying = await customer(world, orders=1)
    await world.execute(late, s=5)
    new = await customer(world)
    assert [claim.owner for claim in await claimed(world, limit=1)] == [str(new)]
    await world.execute(late.replace("attempts = 0", "is_retry AND attempts = 0"), s=20)
    assert [claim.owner for claim in await claimed(world, limit=1)] == [str(retrying)]


async def test_a_claim_reads_no_more_rows_for_a_longer_queue(world: World) -> None:
    """It finds what is due by the index, however many deliveries wait behind these or were sent before."""
    owner = await customer(world, hosts=2, orders=40)
    buffers = []
    for _ in range(2):
        await world.execute("ANALYZE webhook_deliveries")
        buffers.append(await read_by_a_claim(world))
        await world.execute(
            "INSERT INTO webhook_deliveries (webhook_id, event_id, type, host, state, settled_at, is_retry, due_at)"
            " SELECT id, gen_random_uuid(), 't', host, state, CASE WHEN state = 'sent' THEN now() END, retry,"
            " now() + CASE WHEN retry THEN interval '1 h' ELSE interval '0' END FROM webhooks,"
            " generate_series(1, 3000), (VALUES ('sent', false), ('pending', false), ('pending', true)) AS of"
            " (state, retry) WHERE user_id = :id",
            id=owner,
        )
    assert buffers[1] < 2 * buffers[0] + 50, buffers
