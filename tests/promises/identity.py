"""Auth and users, both real, each on a database of its own, and what another service knows of auth's events."""

import base64
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from pydantic import SecretStr
from sqlalchemy import text
from starlette.types import ASGIApp, Receive, Scope, Send

from auth.app import create_app as create_auth
from auth.consumers import handlers
from auth.settings import Settings as AuthSettings
from common.db.database import Database
from common.messaging.cloudevents import Envelope
from common.runtime.health import Health
from common.security.jwks import JwksClient
from common.security.revocation import SUBJECT_REVOKED, Denylist, SessionRevoked, Snapshot, SubjectRevoked
from common.security.tokens import InvalidToken, Principal, TokenVerifier
from common.settings import resource
from common.testing.api_client import running
from common.testing.plugin import MakeDatabase, eventually
from users.app import create_app as create_users
from users.settings import Settings as UsersSettings

SERVICES = Path(__file__).parents[2] / "services"
ISSUER = "http://gateway.test"
INTERNAL_PORT = 8001
PASSWORD = "a lighthouse in fog 7"
KEY = SecretStr(base64.b64encode(b"k" * 32).decode())
COMMON: dict[str, Any] = {
    "amqp_url": SecretStr("amqp://nobody@broker.invalid/"),
    "public_url": ISSUER,
    "auth_url": f"http://auth.test:{INTERNAL_PORT}",
}


class Identity:
    def __init__(self, auth: httpx.AsyncClient, users: httpx.AsyncClient, databases: tuple[Database, Database]) -> None:
        self.auth, self.users = auth, users
        self.auth_database, self.users_database = databases
        self.keys = JwksClient(auth, f"http://auth.test:{INTERNAL_PORT}/.well-known/jwks.json")
        self.denylist = Denylist()
        """Another service's, which users shares."""

    def verifier(self, service: str, denylist: Denylist) -> TokenVerifier:
        return TokenVerifier(issuer=ISSUER, audience=resource(service), keys=self.keys, denylist=denylist)

    async def sign_up(self, name: str) -> dict[str, Any]:
        body = {"name": "Ada", "email": f"{name}@example.com", "password": PASSWORD}
        answer = await self.users.post("/users", json=body)
        assert answer.status_code == 201, answer.text
        person: dict[str, Any] = answer.json()
        return person

    async def promote(self, user_id: str) -> None:
        """Makes the first administrator, as an operator does."""
        async with self.users_database.transaction() as session:
            await session.execute(text("UPDATE users SET role = 'admin' WHERE id = :id"), {"id": UUID(user_id)})

    async def token(self, **form: str) -> httpx.Response:
        return await self.auth.post("/token", data=form)

    async def grace_ends(self) -> None:
        """Moves the last refresh of each session so far into the past that it may not be repeated."""
        async with self.auth_database.transaction() as session:
            await session.execute(text("UPDATE sessions SET rotated_at = rotated_at - interval '11 s'"))

    async def users_events(self, user_id: str) -> list[Any]:
        return await self._events(self.users_database, "subject = :id", id=user_id)

    async def auth_events(self, user_id: str) -> list[Any]:
        """Of the person and their sessions, in the order in which they are published."""
        return await self._events(self.auth_database, "data ->> 'user_id' = :id", id=user_id)

    async def _events(self, database: Database, of_person: str, **values: Any) -> list[Any]:
        async with database.transaction() as session:
            rows = await session.execute(text(f"SELECT * FROM outbox WHERE {of_person} ORDER BY id"), values)  # noqa: S608
            return list(rows)

    async def reaches_auth(self, row: Any) -> None:
        """Auth processes an event of users."""
        event = handlers.decode(
            Envelope(row.event_id, row.type, row.subject, row.version, row.occurred_at, json.dumps(row.data))
        )
        if event is not None:
            async with self.auth_database.transaction() as session:
                await handlers.handle(session, event)

    def reaches_services(self, row: Any) -> None:
        """Another service processes an event of auth."""
        if row.type == SUBJECT_REVOKED:
            self.denylist.revoke_subject(SubjectRevoked.model_validate(row.data))
        elif row.type == "auth.session.revoked.v1":
            self.denylist.revoke_session(SessionRevoked.model_validate(row.data))

    async def snapshot(self) -> Denylist:
        """What a service knows that starts now."""
        form = {"grant_type": "client_credentials", "scope": "revocations:read"}
        answer = await self.auth.post("/token", data=form, auth=httpx.BasicAuth("orders", "orders-secret"))
        bearer = {"Authorization": f"Bearer {answer.json()['access_token']}"}
        found = await self.auth.get(f"http://auth.test:{INTERNAL_PORT}/internal/revocations", headers=bearer)
        denylist = Denylist()
        denylist.load(Snapshot.model_validate_json(found.content))
        return denylist

    async def principal(self, access_token: str, denylist: Denylist) -> Principal | None:
        """As another service verifies the token; None if it refuses it."""
        try:
            return await self.verifier("orders", denylist).verify(access_token)
        except InvalidToken:
            return None


def with_state(app: ASGIApp, state: dict[str, Any]) -> ASGIApp:
    async def entry(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": dict(state)}, receive, send)

    return entry


@contextlib.asynccontextmanager
async def serving(make_database: MakeDatabase) -> AsyncIterator[Identity]:
    auth_settings = AuthSettings(
        database_url=SecretStr(await make_database(SERVICES / "auth" / "migrations")),
        users_url=f"http://users.test:{INTERNAL_PORT}",
        key_encryption_key=KEY,
        refresh_token_secret=KEY,
        service_clients=[
            {
                "client_id": "orders",
                "secret_sha256": hashlib.sha256(b"orders-secret").hexdigest(),
                "scopes": ["revocations:read"],
            }
        ],
        **COMMON,
    )
    users_settings = UsersSettings(
        database_url=SecretStr(await make_database(SERVICES / "users" / "migrations")),
        client_secret=SecretStr("unused"),
        key_encryption_key=KEY,
        login_patience=60,
        addresses_per_network=1_000_000,
        **COMMON,
    )
    async with contextlib.AsyncExitStack() as stack:
        databases = tuple(Database(settings, role="test") for settings in (auth_settings, users_settings))
        for database in databases:
            stack.push_async_callback(database.close)
        health, entries = Health(), dict[str, ASGIApp]()

        async def users_entry(scope: Scope, receive: Receive, send: Send) -> None:
            await entries["users"](scope, receive, send)

        to_users = httpx.ASGITransport(users_entry)
        auth_app = create_auth(auth_settings, health, internal_port=INTERNAL_PORT, users_transport=to_users)
        to_auth = httpx.ASGITransport(with_state(auth_app, await stack.enter_async_context(running(auth_app))))
        auth, users = [
            await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url=f"http://{name}.test"))
            for transport, name in ((to_auth, "auth"), (to_users, "users"))
        ]
        identity = Identity(auth, users, (databases[0], databases[1]))
        verifier = identity.verifier("users", identity.denylist)
        users_app = create_users(users_settings, Health(), internal_port=INTERNAL_PORT, tokens=verifier)
        entries["users"] = with_state(users_app, await stack.enter_async_context(running(users_app)))

        async def is_ready() -> bool:
            return (await health.ready())[0]

        await eventually(is_ready, within=30)
        yield identity
