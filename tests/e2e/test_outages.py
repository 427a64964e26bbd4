"""Behaviour while a part is unavailable."""

import asyncio
from typing import Any

import pytest

from common.testing.plugin import eventually


@pytest.mark.slow
async def test_orders_are_accepted_while_the_broker_is_unavailable_and_mailed_afterwards(
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


async def test_requests_are_refused_in_time_without_postgres_and_accepted_afterwards(
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


async def test_a_login_is_refused_in_time_without_users(stack: Any, customer: Any) -> None:
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
