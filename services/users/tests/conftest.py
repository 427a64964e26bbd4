"""The public and the internal API of users on a database of their own, with tokens that a test issuer signs."""

import base64
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, event, text
from starlette.types import Receive, Scope, Send

from common.db.database import Database
from common.runtime.health import Health
from common.testing.api_client import running
from common.testing.plugin import MakeDatabase
from common.testing.token_issuer import TokenIssuer
from users.app import create_app
from users.settings import Settings

MIGRATIONS = Path(__file__).parents[1] / "migrations"
INTERNAL_PORT = 8001
PASSWORD = "a lighthouse in fog 7"

Person = dict[str, Any]


class World:
    """The APIs that a test calls, and the database that it inspects."""

    password = PASSWORD

    def __init__(self, public: httpx.AsyncClient, internal: httpx.AsyncClient, database: Database) -> None:
        self.public = public
        self.internal = internal
        self.database = database
        self.tokens = ISSUER
        self._number = itertools.count(1)

    async def sign_up(self, *, send_welcome: bool = False, **fields: Any) -> Person:
        body = {"name": "Ann", "email": f"person{next(self._number)}@example.com", "password": PASSWORD} | fields
        answer = await self.public.post("/users", params={"send_welcome": send_welcome}, json=body)
        assert answer.status_code == 201, answer.text
        person: Person = answer.json()
        return person

    async def admin(self, **fields: Any) -> Person:
        person = await self.sign_up(**fields)
        await self.execute("UPDATE users SET role = 'admin' WHERE id = :id", id=person["id"])
        return person

    def bearer(self, person: Person | None = None, *, admin: bool = False, **mint: Any) -> dict[str, str]:
        """The `Authorization` header of a person, or of an admin, who needs no account."""
        roles = ("admin",) if admin else ("user",)
        return self.tokens.bearer(person["id"] if person is not None else None, roles=roles, **mint)

    async def log_in(
        self, email: str, password: str = PASSWORD, network: str | None = "203.0.113.1", **fields: Any
    ) -> httpx.Response:
        """Calls the internal API as auth does."""
        token = self.tokens.mint_service("auth", scope="credentials:verify")
        body = {"email": email, "password": password} | ({"network": network} if network is not None else {}) | fields
        return await self.internal.post(
            "/internal/credentials/verify", json=body, headers={"Authorization": f"Bearer {token}"}
        )

    async def issue(self, link_id: str) -> httpx.Response:
        """Calls the internal API as notifier does while it writes the mail."""
        token = self.tokens.mint_service("notifier", scope="links:issue")
        return await self.internal.post(
            f"/internal/secret-links/{link_id}", headers={"Authorization": f"Bearer {token}"}
        )

    async def request_email(self, person: Person, email: str, *, password: str = PASSWORD) -> httpx.Response:
        """Requests a new address, with a recent sign-in."""
        body = {"email": email, "current_password": password}
        return await self.public.patch("/me", json=body, headers=self.bearer(person))

    async def links(self, person: Person, purpose: str | None = None) -> list[str]:
        """The ids of the person's links requested so far, from the recorded events."""
        rows = await self.rows("SELECT data FROM outbox WHERE type = 'users.secret_link.requested.v1' ORDER BY id")
        found = [row["data"] for row in rows if row["data"]["user_id"] == person["id"]]
        return [link["link_id"] for link in found if purpose in (None, link["purpose"])]

    async def mailed(self, person: Person, purpose: str) -> str:
        """The secret of the last link with this purpose, as its mail has it."""
        token: str = (await self.issue((await self.links(person, purpose))[-1])).json()["token"]
        return token

    async def use(self, path: str, token: str, **fields: Any) -> tuple[int, str | None]:
        """Uses a link. Returns the status and the problem's code."""
        answer = await self.public.post(path, json={"token": token, **fields})
        return answer.status_code, answer.json()["code"] if answer.content else None

    async def change_email(self, person: Person, email: str) -> Person:
        """Requests and confirms a new address. Returns the account."""
        answer = await self.request_email(person, email)
        assert answer.status_code == 200, answer.text
        assert await self.use("/email-changes/confirm", await self.mailed(person, "confirm_email")) == (204, None)
        changed: Person = (await self.public.get("/me", headers=self.bearer(person))).json()
        return changed

    async def statements_of(self, request: Awaitable[Any]) -> list[str]:
        """What a request has the database do."""
        run: list[str] = []

        def note(_: Any, __: Any, statement: str, *___: Any) -> None:
            run.append(statement)

        event.listen(Engine, "before_cursor_execute", note)
        try:
            await request
        finally:
            event.remove(Engine, "before_cursor_execute", note)
        return run

    async def execute(self, statement: str, **values: Any) -> None:
        async with self.database.transaction() as session:
            await session.execute(text(statement), values)

    async def rows(self, statement: str, **values: Any) -> list[dict[str, Any]]:
        async with self.database.transaction() as session:
            return [dict(row) for row in (await session.execute(text(statement), values)).mappings()]

    async def events(self, subject: str) -> list[dict[str, Any]]:
        """The recorded events of an aggregate, oldest first."""
        return await self.rows(
            "SELECT type, version, data FROM outbox WHERE subject = :subject ORDER BY id", subject=subject
        )

    async def time_passes(self, seconds: float) -> None:
        """Moves the times of all sign-in counts into the past."""
        for table, column in (
            ("login_backoffs", "blocked_until"),
            ("login_backoffs", "updated_at"),
            ("login_buckets", "updated_at"),
            ("known_networks", "last_login_at"),
        ):
            await self.execute(f"UPDATE {table} SET {column} = {column} - make_interval(secs => :s)", s=seconds)  # noqa: S608


ISSUER = TokenIssuer()


@pytest.fixture
async def settings(make_database: MakeDatabase) -> Settings:
    return Settings(
        database_url=SecretStr(await make_database(MIGRATIONS)),
        amqp_url=SecretStr("amqp://nobody@broker.invalid/"),
        client_secret=SecretStr("unused"),
        key_encryption_key=SecretStr(base64.b64encode(b"k" * 32).decode()),
        public_url=ISSUER.issuer,
        auth_url="http://auth.invalid",
        login_patience=60,
    )


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    database = Database(settings, role="test")
    yield database
    await database.close()


Start = Callable[[Settings], Awaitable[World]]


@pytest.fixture
async def start(database: Database) -> AsyncIterator[Start]:
    """Starts an API with given settings. Several are replicas on one database."""
    async with contextlib.AsyncExitStack() as stack:

        async def started(settings: Settings) -> World:
            app = create_app(settings, Health(), internal_port=INTERNAL_PORT, tokens=ISSUER.verifier("users"))
            state = await stack.enter_async_context(running(app))

            async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
                await app({**scope, "state": dict(state)}, receive, send)

            transport = httpx.ASGITransport(with_state)
            clients = [
                await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url=f"http://users:{port}"))
                for port in (8000, INTERNAL_PORT)
            ]
            return World(clients[0], clients[1], database)

        yield started


@pytest.fixture
async def world(start: Start, settings: Settings) -> World:
    return await start(settings)
