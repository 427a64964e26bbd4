"""Orders through the compose stack, from sign-up to mail: one, or a stream of them while the stack is disturbed.

    .venv/bin/python -m waybill_dev.compose.journey               one order and its mail
    .venv/bin/python -m waybill_dev.compose.journey --seconds 60  orders for that long, then counts their mails

Exit code 0 only if no mail is missing and none came for an order twice under two Message-IDs; it says how many
requests failed and had to be sent again.
"""

import argparse
import asyncio
import contextlib
import secrets
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import httpx

from waybill_dev.chaos.shoppers import PRODUCT, SKU, Account, Purchases, Shopper, buy
from waybill_dev.errors import LocalError

COMPOSE = Path(__file__).parents[3] / "deploy" / "compose.yml"
MAIL_SECONDS = 120.0
PAGE = 500
PAUSE_SECONDS = 0.5
PACE_SECONDS = 0.1  # between orders, so that mails can be read before Mailpit drops them


async def sign_up(gateway: str) -> tuple[str, Account]:
    account = Account(f"{secrets.token_hex(8)}@waybill.example", secrets.token_urlsafe(18))
    body = {"name": "Ada Lovelace", "email": account.email, "password": account.password}
    async with httpx.AsyncClient(base_url=gateway, timeout=20) as client:
        answer = await client.post("/users", params={"send_welcome": False}, json=body)
    if answer.status_code != 201:
        raise LocalError(f"POST /users was answered {answer.status_code}: {answer.text}")
    return answer.json()["id"], account


async def collect(
    inbox: str, address: str, found: dict[str, set[str]], *, wanted: Mapping[str, int], ordered: asyncio.Event
) -> None:
    """Adds to `found`, by order, the message ids of its confirmation mails.

    Ends when `ordered` is set and each order of `wanted` is found. Reads during the run, because Mailpit keeps only the
    newest 500.
    """
    question: dict[str, str | int] = {"query": f'to:{address} subject:"We have your order"', "limit": PAGE}
    seen: set[str] = set()
    async with httpx.AsyncClient(base_url=inbox, timeout=20) as client:
        while not (ordered.is_set() and found.keys() >= wanted.keys()):
            page = (await client.get("/api/v1/search", params=question)).raise_for_status().json()["messages"]
            for mail in page:
                if mail["ID"] in seen:
                    continue
                answer = await client.get(f"/api/v1/message/{mail['ID']}")
                if answer.status_code == httpx.codes.NOT_FOUND:
                    continue
                seen.add(mail["ID"])
                text = answer.raise_for_status().json()["Text"]
                for order in (word.strip(".,()") for word in text.split() if word.count("-") == 4):
                    found.setdefault(order, set()).add(mail["MessageID"])
            await asyncio.sleep(PAUSE_SECONDS)


async def run(gateway: str, inbox: str, seconds: float) -> bool:
    _, administrator = await sign_up(gateway)
    promote = ["docker", "compose", "-f", str(COMPOSE), "exec", "-T", "users-api", "python", "-m", "users", "promote"]
    subprocess.run([*promote, administrator.email, "admin"], check=True, stdout=subprocess.DEVNULL)  # noqa: ASYNC221
    purchases = Purchases("waybill.example")
    staff = Shopper(gateway, administrator, purchases)
    await staff.request("PUT", f"/products/{SKU}", json=PRODUCT)
    customer, account = await sign_up(gateway)
    purchases.orders_of[customer] = set()
    shopper = Shopper(gateway, account, purchases)
    mails: dict[str, set[str]] = {}
    ordered = asyncio.Event()
    collecting = asyncio.create_task(collect(inbox, account.email, mails, wanted=purchases.changes, ordered=ordered))
    began = time.monotonic()
    number = 1
    await buy(shopper, customer, staff, purchases, number)
    while time.monotonic() - began < seconds:
        await asyncio.sleep(PACE_SECONDS)
        number += 1
        await buy(shopper, customer, staff, purchases, number)
    print(f"{number} orders in {time.monotonic() - began:.0f} s, {purchases.repeated} requests failed", flush=True)
    ordered.set()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(collecting, MAIL_SECONDS)
    await shopper.close()
    await staff.close()
    missing = purchases.changes.keys() - mails.keys()
    double = Counter({order: len(ids) for order, ids in mails.items() if len(ids) > 1})
    print(f"{len(mails)} mails, {len(missing)} missing, {len(double)} double, after {time.monotonic() - began:.1f} s")
    return not missing and not double


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--gateway", default="http://localhost:8080")
    parser.add_argument("--mails", default="http://localhost:8025")
    parser.add_argument("--seconds", type=float, default=0.0)
    arguments = parser.parse_args()
    sys.exit(not asyncio.run(run(arguments.gateway, arguments.mails, arguments.seconds)))
