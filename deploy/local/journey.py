"""One order's way through the whole system, as its customer takes it: sign-up, token, order, e-mail."""

import asyncio
import email
import email.policy
import secrets
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from local.failure import LocalError

SKU = "DEMO-LAMP"
PRODUCT = {"name": "Desk lamp", "price": {"amount": 4990, "currency": "EUR"}, "active": True}
MAIL_SECONDS = 60.0
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Hop:
    at: datetime
    where: str
    what: str


@dataclass
class Journey:
    """What happened; `hops` in the order of their times."""

    order: dict[str, Any]
    mail: EmailMessage
    hops: list[Hop] = field(default_factory=list)


async def travel(status: dict[str, Any]) -> Journey:
    """Takes one order through the stack that `./dev status --json` describes. Raises LocalError if it gets stuck."""
    hops = []

    def note(where: str, what: str) -> None:
        hops.append(Hop(datetime.now(UTC), where, what))

    async with httpx.AsyncClient(base_url=status["gateway"], timeout=20) as client:
        await _stock(client, status["admin"])
        customer = {
            "name": "Ada Lovelace",
            "email": f"ada-{secrets.token_hex(4)}@waybill.example",
            "password": secrets.token_urlsafe(18),
        }
        await _ask(client, "POST", "/users?send_welcome=true", json=customer)
        note("users", f"signed up {customer['email']}")
        bearer = await _sign_in(client, customer["email"], customer["password"])
        note("auth", "access token issued")
        order = await _ask(client, "POST", "/orders", headers=bearer, json={"lines": [{"sku": SKU, "quantity": 2}]})
        note("gateway", f"201 for POST /orders, {order['id']}")
    mail, received = await _mail(Path(status["mail"]["maildir"]), order["id"])
    hops += await _recorded(status["services"], order)
    hops.append(Hop(received, "mail", f"e-mail received: {mail['Subject']}"))
    return Journey(order, mail, sorted(hops, key=lambda hop: hop.at))


async def _stock(client: httpx.AsyncClient, admin: dict[str, str]) -> None:
    bearer = await _sign_in(client, admin["email"], admin["password"])
    if (await client.get(f"/products/{SKU}", headers=bearer)).status_code != 200:
        await _ask(client, "PUT", f"/products/{SKU}", headers=bearer, json=PRODUCT)


async def _sign_in(client: httpx.AsyncClient, address: str, password: str) -> dict[str, str]:
    form = {"grant_type": "password", "username": address, "password": password}
    answer = await _ask(client, "POST", "/token", data=form)
    return {"Authorization": f"Bearer {answer['access_token']}"}


async def _ask(client: httpx.AsyncClient, method: str, path: str, **request: Any) -> dict[str, Any]:
    try:
        answer = await client.request(method, path, **request)
    except httpx.TransportError as error:
        raise LocalError(f"{method} {path}: {type(error).__name__} {error}") from error
    if not answer.is_success:
        raise LocalError(f"{method} {path} was answered {answer.status_code}: {answer.text}")
    content: dict[str, Any] = answer.json()
    return content


async def _mail(maildir: Path, order_id: str) -> tuple[EmailMessage, datetime]:
    """The mail that names the order, and when it was there."""
    deadline = time.monotonic() + MAIL_SECONDS
    seen: set[Path] = set()
    while time.monotonic() < deadline:
        for file in set(await asyncio.to_thread(_files, maildir)) - seen:
            seen.add(file)
            content = await asyncio.to_thread(file.read_bytes)
            message = email.message_from_bytes(content, policy=email.policy.default)
            if order_id in str(message.get_body(("plain", "html"))):
                return message, datetime.fromtimestamp(file.stat().st_mtime, UTC)
        await asyncio.sleep(POLL_SECONDS)
    raise LocalError(f"no e-mail named order {order_id} within {MAIL_SECONDS:.0f} s")


def _files(maildir: Path) -> list[Path]:
    return list(maildir.glob("*"))


async def _recorded(services: dict[str, Any], order: dict[str, Any]) -> list[Hop]:
    """What the services' own databases tell of the order."""
    hops = [Hop(datetime.fromisoformat(order["created_at"]), "orders", "order and event committed in one transaction")]
    published = await _row(
        services["orders"]["database_url"],
        "SELECT type, published_at FROM event_log WHERE subject = $1 ORDER BY position LIMIT 1",
        order["id"],
    )
    if published is not None:
        hops.append(Hop(published["published_at"], "orders relay", f"{published['type']} confirmed by RabbitMQ"))
    delivery = await _row(
        services["notifier"]["database_url"],
        """SELECT delivery.created_at, delivery.settled_at FROM deliveries AS delivery
           JOIN notifications ON notifications.id = notification_id
           WHERE order_id = $1 AND channel = 'mail' LIMIT 1""",
        order["id"],
    )
    if delivery is not None:
        hops.append(Hop(delivery["created_at"], "notifier consume", "notification and its delivery committed"))
        if delivery["settled_at"] is not None:
            hops.append(Hop(delivery["settled_at"], "notifier deliver", "mail handed to SMTP, recorded as sent"))
    return hops


async def _row(database_url: str, query: str, order_id: str) -> asyncpg.Record | None:
    connection = await asyncpg.connect(database_url)
    try:
        return await connection.fetchrow(query, order_id)
    finally:
        await connection.close()
