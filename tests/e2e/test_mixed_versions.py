"""The last released version of each service together with current others: rolled out and rolled back one by one.

The order is the same both times, so that any two services meet in both mixes: the first new with the second old during
the rollout, and the reverse during the rollback. The databases start as the release created them, and each upgrade
migrates its own first. Orders are placed all the time, and after each step one is followed from sign-up to mail. No
request may fail, and at the end everything is counted.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from waybill_dev.base.state import find_state
from waybill_dev.chaos.count import count
from waybill_dev.chaos.run import until_settled
from waybill_dev.chaos.shoppers import Purchases, Shopper, buy, open_shop
from waybill_dev.chaos.subscriber import Subscriber
from waybill_dev.journeys.order_journey import travel
from waybill_dev.services.programs import ROLES
from waybill_dev.services.releases import check_out, has, releases
from waybill_dev.testing import StackUnderTest, stack_folder

from .conftest import Report

pytestmark = pytest.mark.slow
CHECKOUT = find_state().checkout


class Mixed(StackUnderTest):
    """A stack in which each service has its own version: `released` or the current one."""

    def __init__(self, folder: Path, released: dict[str, Path]) -> None:
        super().__init__(folder)
        self._released = released

    def prepare(self, service: str, *, current: bool) -> None:
        link = self.folder / "from" / service
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(self.checkout if current else self._released[service])

    async def run(self, service: str, *, current: bool) -> None:
        """Switches the version as in docs/operations.md: a migration precedes an upgrade, but no rollback."""
        self.prepare(service, current=current)
        if current:
            await asyncio.to_thread(self.dev, "ops", service, "migrate")
        await asyncio.to_thread(self.dev, "restart", service)
        await travel(await asyncio.to_thread(lambda: self.status))


@pytest.fixture
def mixed(stack: StackUnderTest) -> Iterator[Mixed]:
    """Starts with all services released, on its own databases. Uses `stack` only to wait for this test's turn."""
    known = releases(CHECKOUT)
    for release in known.values():
        if not has(CHECKOUT, release.commit):
            pytest.skip(f"this clone lacks {release.commit} of {release.service} {release.version}: fetch --unshallow")
    released = {service: check_out(CHECKOUT, known[service].commit) for service in ROLES if service in known}
    if released.keys() != ROLES.keys():
        pytest.skip(f"no release yet of {', '.join(ROLES.keys() - released.keys())}")
    under_test = Mixed(stack_folder().with_name("mixed"), released)
    under_test.dev("reset")
    for service in ROLES:
        under_test.prepare(service, current=False)
    under_test.dev("up", "--detach", "--owner", str(os.getpid()))
    yield under_test
    under_test.dev("down")


@contextlib.asynccontextmanager
async def orders_flowing(purchases: Purchases, shoppers: list[Shopper], staff: Shopper) -> AsyncIterator[None]:
    ended = False

    async def shop(shopper: Shopper, customer: str) -> None:
        number = 0
        while not ended:
            await buy(shopper, customer, staff, purchases, number)
            number += 1

    async with asyncio.TaskGroup() as group:
        # These two customers get no mails, which would delay the mails of the journeys.
        for shopper, customer in list(zip(shoppers, purchases.customers, strict=True))[1:3]:
            group.create_task(shop(shopper, customer))
        yield
        ended = True


async def test_each_service_is_rolled_out_and_back_with_old_and_new_others_without_a_failed_request(
    mixed: Mixed, report: Report
) -> None:
    for service in ROLES:
        mixed.dev("scale", f"{service}:api=2")
    status, since = mixed.status, datetime.now(UTC)
    purchases, shoppers, staff = await open_shop(status)
    subscriber = Subscriber(status["broker"]["amqp_url"])
    await subscriber.bind()
    listening = asyncio.create_task(subscriber.listen())
    try:
        async with orders_flowing(purchases, shoppers, staff):
            for service in ROLES:
                await mixed.run(service, current=True)
            for service in ROLES:
                await mixed.run(service, current=False)
        mails = mixed.folder / "logs" / "mail.log"
        lines = await until_settled(lambda: count(status, purchases, subscriber.received, since, mails))
        await subscriber.unbind()
    finally:
        listening.cancel()
        for shopper in [*shoppers, staff]:
            await shopper.close()
    report(f"{len(purchases.changes)} orders, {purchases.repeated} requests failed")
    assert [line for line in lines if not line.is_correct] == []
    assert purchases.repeated == 0
