"""Customers who place orders, and staff who process some of them, through all failures.

Every request is repeated until its outcome is known. An order has an `Idempotency-Key`, so a repetition creates no
second one. A change of state that was applied already is answered 409 when it is repeated.
"""

import asyncio
import re
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx

from waybill_dev.errors import LocalError
from waybill_dev.journeys.order_trace import read_mail

SKU = "CHAOS-LAMP"
PRODUCT = {"name": "Lamp", "price": {"amount": 1000, "currency": "EUR"}, "active": True}
CUSTOMERS = 50
PROCESSED = 2  # every second order goes through all its states
STEPS: tuple[tuple[str, dict[str, str] | None], ...] = (
    ("confirm", None),
    ("ship", {"carrier": "Postal", "tracking_number": "PX-1"}),
    ("deliver", None),
)
PAUSE_SECONDS = 0.2
TOKEN_SECONDS = 200.0
PATIENCE_SECONDS = 180.0


@dataclass
class Account:
    email: str
    password: str
    bearer: dict[str, str] = field(default_factory=dict)
    since: float = 0.0


@dataclass
class Purchases:
    """What was acknowledged. `changes` has the number of changes of each order, placing included."""

    domain: str
    """The domain of these customers' e-mail addresses, used in this run only."""
    customers: list[str] = field(default_factory=list)
    mail_customers: set[str] = field(default_factory=set)
    changes: dict[str, int] = field(default_factory=dict)
    orders_of: dict[str, set[str]] = field(default_factory=dict)
    repeated: int = 0
    """Requests that were sent again, because their outcome was unknown or a 5xx."""


class Shopper:
    """One person, with a connection of their own that is kept alive."""

    def __init__(self, gateway: str, account: Account, purchases: Purchases) -> None:
        self._client = httpx.AsyncClient(base_url=gateway, timeout=20)
        self._account = account
        self._purchases = purchases

    async def close(self) -> None:
        await self._client.aclose()

    async def request(self, method: str, path: str, *, known: frozenset[int] = frozenset(), **arguments: Any) -> Any:
        """Repeats the request until the answer is a 2xx, or, when it is a repetition, a status in `known`.

        Raises LocalError when another status comes, or no answer within PATIENCE_SECONDS.
        """
        headers = arguments.pop("headers", {})
        deadline = time.monotonic() + PATIENCE_SECONDS
        first = True
        while time.monotonic() < deadline:
            if not first:
                self._purchases.repeated += 1
                await asyncio.sleep(PAUSE_SECONDS)
            try:
                bearer = await self._bearer()
                answer = await self._client.request(method, path, headers={**bearer, **headers}, **arguments)
            except httpx.TransportError:
                first = False
                continue
            if answer.is_success or (answer.status_code in known and not first):
                return answer
            if answer.status_code == 401:
                self._account.since = 0.0
            elif answer.status_code < 500 and answer.status_code not in {409, 429}:
                raise LocalError(f"{method} {path} was answered {answer.status_code}: {answer.text}")
            first = False
        raise LocalError(f"{method} {path} had no answer within {PATIENCE_SECONDS:.0f} s")

    async def _bearer(self) -> dict[str, str]:
        account = self._account
        if time.monotonic() - account.since > TOKEN_SECONDS or not account.bearer:
            form = {"grant_type": "password", "username": account.email, "password": account.password}
            answer = await self._client.post("/token", data=form)
            if answer.is_success:
                account.bearer = {"Authorization": f"Bearer {answer.json()['access_token']}"}
                account.since = time.monotonic()
        return account.bearer


async def open_shop(status: dict[str, Any]) -> tuple[Purchases, list[Shopper], Shopper]:
    """Signs up the customers and the staff. Only the first customer gets mails about orders, at a verified address."""
    gateway, admin = status["gateway"], status["admin"]
    purchases = Purchases(f"{secrets.token_hex(4)}.chaos.example")
    staff = Shopper(gateway, Account(admin["email"], admin["password"]), purchases)
    await staff.request("PUT", f"/products/{SKU}", json=PRODUCT)
    shoppers = []
    async with httpx.AsyncClient(base_url=gateway, timeout=20) as client:
        for number in range(CUSTOMERS):
            account = Account(f"{secrets.token_hex(8)}@{purchases.domain}", secrets.token_urlsafe(18))
            person = {"name": "Ada Lovelace", "email": account.email, "password": account.password}
            answer = await client.post("/users", params={"send_welcome": False}, json=person)
            if answer.status_code != 201:
                raise LocalError(f"POST /users was answered {answer.status_code}: {answer.text}")
            user_id = answer.json()["id"]
            shopper = Shopper(gateway, account, purchases)
            if number == 0:
                purchases.mail_customers.add(user_id)
                await _verify(shopper, Path(status["mail"]["maildir"]), account.email)
            else:
                preferences = {"order_updates": False, "welcome": False}
                await shopper.request("PUT", "/notification-preferences", json=preferences)
            purchases.customers.append(user_id)
            purchases.orders_of[user_id] = set()
            shoppers.append(shopper)
    return purchases, shoppers, staff


async def _verify(shopper: Shopper, maildir: Path, email: str) -> None:
    """Uses the link in the mail. An unverified address would get a few mails only."""
    await shopper.request("POST", "/email-verifications")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if token := await asyncio.to_thread(_mailed_token, maildir, email):
            await shopper.request("POST", "/email-verifications/confirm", json={"token": token})
            return
        await asyncio.sleep(PAUSE_SECONDS)
    raise LocalError(f"no mail to verify {email} within {PATIENCE_SECONDS:.0f} s")


def _mailed_token(maildir: Path, email: str) -> str | None:
    for file in maildir.glob("*.eml"):
        mail = read_mail(file)
        body = mail.get_body(("plain",)) if email in str(mail["To"]) else None
        if body is not None and (found := re.search(r"\?token=(\S+)", body.get_content())):
            return unquote(found[1])
    return None


async def buy(shopper: Shopper, user_id: str, staff: Shopper, purchases: Purchases, number: int) -> None:
    """Places one order. Staff move every second one through all its states."""
    headers = {"Idempotency-Key": secrets.token_hex(16)}
    answer = await shopper.request("POST", "/orders", headers=headers, json={"lines": [{"sku": SKU, "quantity": 1}]})
    order_id = answer.json()["id"]
    purchases.changes[order_id] = 1
    purchases.orders_of[user_id].add(order_id)
    if number % PROCESSED == 0:
        for step, body in STEPS:
            await staff.request("POST", f"/orders/{order_id}/{step}", known=frozenset({409}), json=body)
            purchases.changes[order_id] += 1
