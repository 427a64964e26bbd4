"""Takes one order through the whole system as a customer would: sign-up, token, order, e-mail."""

import asyncio
import secrets
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx

from waybill_dev.errors import LocalError
from waybill_dev.journeys.order_trace import Hop, read_mail, trace
from waybill_dev.journeys.sign_in import access_token

SKU = "DEMO-LAMP"
PRODUCT = {"name": "Desk lamp", "price": {"amount": 4990, "currency": "EUR"}, "active": True}
MAIL_SECONDS = 60.0
RECORD_SECONDS = 2.0
POLL_SECONDS = 0.05


@dataclass
class Journey:
    """The order, its e-mail, and its hops sorted by time."""

    order: dict[str, Any]
    mail: EmailMessage
    hops: list[Hop] = field(default_factory=list)


async def travel(status: dict[str, Any]) -> Journey:
    """Runs the journey on the stack that `./dev status --json` describes. Raises LocalError when a step fails."""
    hops = []

    def note(where: str, what: str) -> None:
        hops.append(Hop(datetime.now(UTC), where, what))

    async with httpx.AsyncClient(base_url=status["gateway"], timeout=20) as client:
        await _ensure_product(client, status["admin"])
        customer = {
            "name": "Ada Lovelace",
            "email": f"ada-{secrets.token_hex(4)}@waybill.example",
            "password": secrets.token_urlsafe(18),
        }
        await _request(client, "POST", "/users?send_welcome=true", json=customer)
        note("users", f"signed up {customer['email']}")
        bearer = await _sign_in(client, customer["email"], customer["password"])
        note("auth", "access token issued")
        order = await _request(client, "POST", "/orders", headers=bearer, json={"lines": [{"sku": SKU, "quantity": 2}]})
        note("gateway", f"201 for POST /orders, {order['id']}")
    mail = await _wait_for_mail(Path(status["mail"]["maildir"]), order["id"])
    hops += await _hops_with_mail(status, UUID(order["id"]))
    return Journey(order, mail, sorted(hops, key=lambda hop: hop.at))


async def _ensure_product(client: httpx.AsyncClient, admin: dict[str, str]) -> None:
    bearer = await _sign_in(client, admin["email"], admin["password"])
    if (await client.get(f"/products/{SKU}", headers=bearer)).status_code != 200:
        await _request(client, "PUT", f"/products/{SKU}", headers=bearer, json=PRODUCT)


async def _sign_in(client: httpx.AsyncClient, address: str, password: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {await access_token(client, address, password)}"}


async def _request(client: httpx.AsyncClient, method: str, path: str, **request: Any) -> dict[str, Any]:
    try:
        answer = await client.request(method, path, **request)
    except httpx.TransportError as error:
        raise LocalError(f"{method} {path}: {type(error).__name__} {error}") from error
    if not answer.is_success:
        raise LocalError(f"{method} {path} was answered {answer.status_code}: {answer.text}")
    content: dict[str, Any] = answer.json()
    return content


async def _hops_with_mail(status: dict[str, Any], order_id: UUID) -> list[Hop]:
    """The order's hops. Waits up to RECORD_SECONDS for notifier to record the mail, after the server accepted it."""
    deadline = time.monotonic() + RECORD_SECONDS
    while True:
        hops = await trace(status, order_id)
        if any(hop.what.startswith("mail of order_placed sent") for hop in hops) or time.monotonic() > deadline:
            return hops
        await asyncio.sleep(POLL_SECONDS)


async def _wait_for_mail(maildir: Path, order_id: str) -> EmailMessage:
    """Returns the first mail that names the order."""
    deadline = time.monotonic() + MAIL_SECONDS
    seen: set[Path] = set()
    while time.monotonic() < deadline:
        for file in set(await asyncio.to_thread(_files, maildir)) - seen:
            seen.add(file)
            message = await asyncio.to_thread(read_mail, file)
            if order_id in str(message.get_body(("plain", "html"))):
                return message
        await asyncio.sleep(POLL_SECONDS)
    raise LocalError(f"no e-mail named order {order_id} within {MAIL_SECONDS:.0f} s")


def _files(maildir: Path) -> list[Path]:
    return list(maildir.glob("*"))
