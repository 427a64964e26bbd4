"""The API of orders on a database of its own, with tokens that a test issuer signs."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import text

from common.db.database import Database, new_id
from common.db.driver_pool import DriverPool
from common.runtime.health import Health
from common.testing.api_client import api_client
from common.testing.plugin import MakeDatabase
from common.testing.token_issuer import TokenIssuer
from orders import handlers
from orders.app import create_app
from orders.changing import group_changes
from orders.models import Money
from orders.placing import group_inserts
from orders.settings import Settings

MIGRATIONS = Path(__file__).parents[1] / "migrations"
ISSUER = TokenIssuer()
LAMP = {"name": "Desk lamp", "price": {"amount": 4900, "currency": "EUR"}, "active": True}


@pytest.fixture
async def settings(make_database: MakeDatabase) -> Settings:
    return Settings(
        database_url=SecretStr(await make_database(MIGRATIONS)),
        amqp_url=SecretStr("amqp://nobody@broker.invalid/"),
        client_secret=SecretStr("unused"),
        public_url=ISSUER.issuer,
        auth_url="http://auth.invalid",
    )


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    database = Database(settings, role="test")
    yield database
    await database.close()


@pytest.fixture
async def driver(database: Database) -> AsyncIterator[DriverPool]:
    driver = DriverPool(database.endpoint, size=3, timeout=10, name="orders-test-driver")
    yield driver
    await driver.close()


class Desk:
    """Calls the handlers without HTTP, and reads the tables."""

    def __init__(self, database: Database, driver: DriverPool) -> None:
        self.database = database
        self.driver = driver
        self.insert = group_inserts(driver, timeout=10)
        self.change = group_changes(driver, timeout=10)
        self.customer = new_id()

    async def stock(self, sku: str, amount: int = 4900, *, currency: str = "EUR", active: bool = True) -> None:
        async with self.database.transaction() as session:
            await handlers.put_product(session, sku, name=f"The {sku}", price=Money(amount, currency), active=active)

    async def place(self, *lines: tuple[str, int], **options: Any) -> Any:
        options = {"customer_id": self.customer} | options
        return await handlers.place_order(self.database, self.insert, lines=lines, **options)

    async def do(self, step: str, order_id: UUID, **options: Any) -> Any:
        """Calls the handler of a step: confirm, ship, deliver or cancel."""
        required: dict[str, dict[str, Any]] = {
            "ship": {"carrier": "Postal", "tracking_number": "PX-42"},
            "cancel": {"customer_id": None, "reason": None},
        }
        handler = getattr(handlers, f"{step}_order")
        return await handler(self.database, self.change, order_id, **(required.get(step, {}) | options))

    async def rows(self, statement: str, **values: Any) -> list[dict[str, Any]]:
        async with self.database.transaction() as session:
            return [dict(row) for row in (await session.execute(text(statement), values)).mappings()]

    async def count(self, table: str) -> int:
        [row] = await self.rows(f"SELECT count(*) AS count FROM {table}")  # noqa: S608 - a test's own word
        found: int = row["count"]
        return found


@pytest.fixture
async def desk(database: Database, driver: DriverPool) -> Desk:
    return Desk(database, driver)


class Shop:
    """Calls the API as customers and as staff."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.customer = new_id()
        self.staff_headers = ISSUER.bearer(roles=("staff",))

    @staticmethod
    def is_problem(answer: httpx.Response, status: int, code: str) -> bool:
        assert answer.headers["Content-Type"] == "application/problem+json"
        problem = answer.json()
        assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code), answer.text
        return True

    def bearer(self, subject: UUID | None = None, **mint: Any) -> dict[str, str]:
        return ISSUER.bearer(subject or self.customer, **mint)

    def client_bearer(self, scope: str) -> dict[str, str]:
        """The `Authorization` header of a machine client, which acts for itself."""
        return {"Authorization": f"Bearer {ISSUER.mint_service('warehouse', scope=scope)}"}

    async def stock(self, sku: str = "LAMP-1", **changes: Any) -> httpx.Response:
        answer = await self.client.put(f"/products/{sku}", json={**LAMP, **changes}, headers=self.staff_headers)
        assert answer.is_success, answer.text
        return answer

    async def place(
        self, *lines: tuple[str, int], note: str | None = None, customer: UUID | None = None, **headers: str
    ) -> httpx.Response:
        body: dict[str, Any] = {"lines": [{"sku": sku, "quantity": quantity} for sku, quantity in lines]}
        if note is not None:
            body["note"] = note
        return await self.client.post("/orders", json=body, headers={**self.bearer(customer), **headers})

    async def order(self, customer: UUID | None = None) -> dict[str, Any]:
        answer = await self.place(("LAMP-1", 1), customer=customer)
        assert answer.status_code == 201, answer.text
        order: dict[str, Any] = answer.json()
        return order

    async def get(self, path: str, **headers: str) -> httpx.Response:
        return await self.client.get(path, headers={**self.bearer(), **headers})

    async def act(self, order_id: str, step: str, json: Any = None, **headers: str) -> httpx.Response:
        """Sends a step as staff."""
        if step == "ship" and json is None:
            json = {"carrier": "Postal", "tracking_number": "PX-42"}
        return await self.client.post(
            f"/orders/{order_id}/{step}", json=json, headers={**self.staff_headers, **headers}
        )


@pytest.fixture
async def shop(settings: Settings) -> AsyncIterator[Shop]:
    async with api_client(create_app(settings, Health(), tokens=ISSUER.verifier("orders"))) as client:
        shop = Shop(client)
        await shop.stock()
        yield shop
