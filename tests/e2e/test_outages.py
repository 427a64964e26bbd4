"""What happens when a part is away, or is killed while orders go in."""

import asyncio
import os
import signal
from typing import Any

import httpx
import pytest

from common.testing import eventually

PROCESSES = [
    "orders:api",
    "orders:relay",
    "notifier:consume",
    "notifier:deliver",
    "rabbitmq",
    "postgres",
    "gateway",
    "users:relay",
    "auth:api",
]


async def test_orders_are_accepted_while_the_broker_is_away_and_mailed_when_it_is_back(
    stack: Any, customer: Any, mailbox: Any
) -> None:
    stack.dev("stop", "rabbitmq")
    try:
        answers = [await customer.order() for _ in range(5)]
        assert {answer.status_code for answer in answers} == {201}
        assert all(float(answer.headers["X-Process-Time"].rstrip("s")) < 1 for answer in answers)
        assert mailbox.to(customer.email) == []
    finally:
        stack.dev("start", "rabbitmq")
    for answer in answers:
        await mailbox.wait_for(customer.email, answer.json()["id"], within=60)
    assert len(mailbox.to(customer.email)) == 5


async def test_with_postgres_away_requests_are_refused_in_time_and_all_is_well_again_after(
    stack: Any, customer: Any, mailbox: Any
) -> None:
    stack.dev("stop", "postgres")
    try:
        answer = await customer.order()
        assert answer.status_code == 503
        assert answer.json()["code"] == "service_unavailable"
    finally:
        stack.dev("start", "postgres")

    async def accepted() -> Any:
        answer = await customer.order()
        return answer if answer.status_code == 201 else None

    answer = await eventually(accepted, within=30)
    await mailbox.wait_for(customer.email, answer.json()["id"], within=30)


async def test_with_users_away_a_login_is_refused_in_time(stack: Any, customer: Any) -> None:
    stack.dev("stop", "users:api")
    try:
        form = {"grant_type": "password", "username": customer.email, "password": customer.password}
        async with asyncio.timeout(10):
            answer = await customer.client.post("/token", data=form)
        assert answer.status_code == 503
    finally:
        stack.dev("start", "users:api")

    async def signed_in() -> bool:
        answer = await customer.client.post("/token", data=form)
        return bool(answer.status_code == 200)

    await eventually(signed_in, within=30)


@pytest.mark.slow
@pytest.mark.parametrize("victim", PROCESSES)
async def test_the_notification_survives_kill_9_of(victim: str, stack: Any, customer: Any, mailbox: Any) -> None:
    """200 orders go in; in the middle of them one process is killed. Every accepted order is mailed, once."""
    accepted: set[str] = set()

    async def order_all(count: int) -> None:
        for _ in range(count):
            try:
                answer = await customer.order()
            except httpx.TransportError:
                continue
            if answer.status_code == 201:
                accepted.add(answer.json()["id"])

    buying = asyncio.gather(*(order_all(25) for _ in range(8)))

    async def under_way() -> bool:
        return len(accepted) >= 40

    await eventually(under_way, within=30)
    os.kill(pid_of(stack.status, victim), signal.SIGKILL)
    await buying
    assert len(accepted) >= 40

    async def all_mailed() -> bool:
        bodies = "\n".join(mailbox.bodies(customer.email))
        return all(order in bodies for order in accepted)

    await eventually(all_mailed, within=60)
    bodies = mailbox.bodies(customer.email)
    assert all(sum(order in body for body in bodies) == 1 for order in accepted)


def pid_of(status: dict[str, Any], name: str) -> int:
    pids = {process["name"]: process["pid"] for process in status["processes"]}
    return int(pids[name.replace(":", "-")])
