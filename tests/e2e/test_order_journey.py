"""One order through the whole system."""

import asyncio
import re
from typing import Any

from common.testing.plugin import eventually

from .conftest import plain_text


async def test_an_order_becomes_an_event_a_notification_and_a_mail(customer: Any, mailbox: Any) -> None:
    answer = await customer.order(3)
    assert answer.status_code == 201
    order = answer.json()
    assert answer.headers["Location"].endswith(f"/orders/{order['id']}")
    assert order["total"] == {"amount": 14700, "currency": "EUR"}
    mail = await mailbox.wait_for(customer.email, order["id"])
    assert "147.00" in plain_text(mail)
    (notification,) = (await customer.get("/notifications")).json()["items"]
    assert notification["order_id"] == order["id"]


async def test_every_state_of_an_order_is_one_notification_and_one_mail(
    customer: Any, admin: Any, mailbox: Any
) -> None:
    order = (await customer.order()).json()
    for step, body in (
        ("confirm", None),
        ("ship", {"carrier": "Postal", "tracking_number": "PX-42"}),
        ("deliver", None),
    ):
        answer = await admin.client.post(f"/orders/{order['id']}/{step}", json=body, headers=admin.bearer)
        assert answer.status_code == 200, answer.text

    async def four() -> bool:
        return len(mailbox.to(customer.email)) == 4

    await eventually(four, within=20)
    kinds = [item["kind"] for item in (await customer.get("/notifications")).json()["items"]]
    assert len(set(kinds)) == len(kinds) == 4
    assert any("Postal" in body and "PX-42" in body for body in mailbox.bodies(customer.email))
    timeline = (await customer.get(f"/orders/{order['id']}/events")).json()["items"]
    assert [item["type"].split(".")[-2] for item in timeline] == ["placed", "confirmed", "shipped", "delivered"]


async def test_the_welcome_mail_is_sent_only_if_requested(sign_up: Any, mailbox: Any, product: None) -> None:
    silent, welcomed = await sign_up(), await sign_up(send_welcome=True)
    mail = await mailbox.wait_for(welcomed.email, "elcome")
    assert mail["Auto-Submitted"] == "auto-generated"
    # A later mail to the other person proves that no welcome was sent to them.
    order = (await silent.order()).json()
    await mailbox.wait_for(silent.email, order["id"])
    assert len(mailbox.to(silent.email)) == 1


async def test_a_new_address_receives_the_order_mail_and_the_previous_one_is_notified_of_the_change(
    customer: Any, mailbox: Any
) -> None:
    new = f"new-{customer.email}"
    body = {"email": new, "current_password": customer.password}
    answer = await customer.client.patch("/me", json=body, headers=customer.bearer)
    assert answer.status_code == 200, answer.text
    await mailbox.wait_for(new, "/email-changes/page")
    token = re.findall(r"/email-changes/page\?token=([\w-]+)", "".join(mailbox.bodies(new)))[0]
    used = await customer.client.post("/email-changes/confirm", json={"token": token})
    assert used.status_code == 204, used.text
    order = (await customer.order()).json()
    await mailbox.wait_for(new, order["id"])
    await mailbox.wait_for(customer.email, "another e-mail address")


async def test_each_of_many_concurrent_orders_is_mailed(customer: Any, mailbox: Any) -> None:
    answers = await asyncio.gather(*(customer.order(n + 1) for n in range(50)))
    assert {answer.status_code for answer in answers} == {201}
    expected = {answer.json()["id"] for answer in answers}

    async def all_mailed() -> bool:
        return len(mailbox.to(customer.email)) >= 50

    await eventually(all_mailed, within=30)
    bodies = mailbox.bodies(customer.email)
    assert len(bodies) == 50
    assert all(sum(order in body for body in bodies) == 1 for order in expected)


async def test_every_service_verifies_tokens_without_calling_auth(stack: Any, customer: Any) -> None:
    """With auth stopped, a token that was issued before is still accepted."""
    stack.dev("stop", "auth:api")
    try:
        assert (await customer.order()).status_code == 201
        assert (await customer.get("/me")).status_code == 200
        assert (await customer.get("/notifications")).status_code == 200
        answer = await customer.client.post(
            "/token", data={"grant_type": "password", "username": customer.email, "password": customer.password}
        )
        assert answer.status_code == 503
        assert answer.headers["Content-Type"] == "application/problem+json"
    finally:
        stack.dev("start", "auth:api")

    async def back() -> bool:
        answer = await customer.client.get("/.well-known/jwks.json")
        return bool(answer.status_code == 200)

    await eventually(back)


async def test_signing_out_everywhere_reaches_the_other_services_by_event(customer: Any) -> None:
    assert (await customer.get("/orders")).status_code == 200
    assert (await customer.get("/notifications")).status_code == 200
    answer = await customer.client.delete("/sessions", headers=customer.bearer)
    assert answer.status_code == 204, answer.text

    async def denied() -> bool:
        answers = [await customer.get("/orders"), await customer.get("/notifications"), await customer.get("/me")]
        return all(answer.status_code == 401 for answer in answers)

    await eventually(denied, within=5)
