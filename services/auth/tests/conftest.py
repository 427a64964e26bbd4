import base64
import contextlib
import hashlib
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from pydantic import SecretStr
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from auth.app import create_app
from auth.consumers import handlers
from auth.settings import Settings, StaticClient
from common.db.database import Database, new_id, utc_now
from common.messaging.cloudevents import Envelope
from common.observability.logs import configure_logging
from common.runtime.health import Health
from common.security.jwks import JwksClient
from common.security.tokens import Principal, TokenVerifier
from common.settings import resource
from common.testing.api_client import running
from common.testing.plugin import MakeDatabase, eventually

MIGRATIONS = Path(__file__).parents[1] / "migrations"
INTERNAL_PORT = 9
PASSWORD = "correct horse battery"


@pytest.fixture
async def settings(make_database: MakeDatabase) -> Settings:
    return Settings(
        database_url=SecretStr(await make_database(MIGRATIONS)),
        amqp_url=SecretStr("amqp://127.0.0.1:1/"),
        public_url="http://gateway.test",
        auth_url="http://auth.test",
        users_url="http://users.test",
        key_encryption_key=SecretStr(base64.b64encode(b"k" * 32).decode()),
        refresh_token_secret=SecretStr(base64.b64encode(b"r" * 32).decode()),
        service_clients=(
            StaticClient(
                client_id="orders",
                secret_sha256=hashlib.sha256(b"orders-secret").hexdigest(),
                scopes=("revocations:read",),
            ),
            StaticClient(
                client_id="notifier",
                secret_sha256=hashlib.sha256(b"s:e c+r/e%t").hexdigest(),
                scopes=("revocations:read", "links:issue"),
            ),
        ),
    )


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    database = Database(settings, role="test")
    yield database
    await database.close()


@dataclass
class Person:
    email: str
    user_id: UUID = field(default_factory=new_id)
    role: str = "user"
    version: int = 1
    status: str = "active"
    name: str = "Ada"
    code: str | None = None
    """What the account's second factor accepts, if it has one."""


class Users:
    """Replaces the users service: it knows people, and can fail, throttle or be slow."""

    def __init__(self) -> None:
        self.people: dict[str, Person] = {}
        self.requests: list[tuple[dict[str, Any], str]] = []
        self.override: Callable[[], httpx.Response] | None = None
        self.on_verified: Callable[[Person], Any] | None = None
        self.transport = httpx.MockTransport(self._answer)

    def add(self, email: str, *, role: str = "user", version: int = 1, code: str | None = None) -> Person:
        self.people[email] = Person(email, role=role, version=version, code=code)
        return self.people[email]

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/profile"):
            return self._profile(request)
        body = json.loads(request.content)
        if str(request.url) == "http://users.test/internal/accounts":
            return httpx.Response(200, json={"items": self._states(body["user_ids"])})
        assert (request.method, str(request.url)) == ("POST", "http://users.test/internal/credentials/verify")
        self.requests.append((body, request.headers["Authorization"].removeprefix("Bearer ")))
        if self.override is not None:
            return self.override()
        person = self.people.get(body["email"])
        account = {} if person is None else {"Waybill-Account": str(person.user_id)}
        if body["password"] == "throttled":
            return httpx.Response(429, headers=account)
        needs_code = person is not None and person.code is not None and body.get("otp") != person.code
        if person is None or body["password"] != PASSWORD or needs_code:
            is_missing = needs_code and body["password"] == PASSWORD and "otp" not in body
            code = "mfa_required" if is_missing else "invalid_credentials"
            return httpx.Response(401, json={"code": code}, headers=account)
        answer = {
            "user_id": str(person.user_id),
            "role": person.role,
            "status": person.status,
            "version": person.version,
            "amr": ["pwd"] if person.code is None else ["pwd", "otp", "mfa"],
            "has_second_factor": person.code is not None,
        }
        if self.on_verified is not None:
            await self.on_verified(person)
        return httpx.Response(200, json=answer)

    def _states(self, user_ids: list[str]) -> list[dict[str, Any]]:
        found = [person for person in self.people.values() if str(person.user_id) in user_ids]
        return [
            {"user_id": str(each.user_id), "role": each.role, "status": each.status, "version": each.version}
            for each in found
        ]

    def _profile(self, request: httpx.Request) -> httpx.Response:
        user_id = request.url.path.split("/")[-2]
        for person in self.people.values():
            if str(person.user_id) == user_id:
                profile = {"name": person.name, "email": person.email, "email_verified": True}
                return self.override() if self.override is not None else httpx.Response(200, json=profile)
        return httpx.Response(404, json={"code": "not_found"})


@dataclass
class Auth:
    """Auth as its callers see it: the public API, and the internal one."""

    http: httpx.AsyncClient
    internal: httpx.AsyncClient
    users: Users

    async def token(self, **form: str) -> httpx.Response:
        return await self.http.post("/token", data=form)

    async def sign_in(self, person: Person, **form: str) -> dict[str, Any]:
        answer = await self.token(grant_type="password", username=person.email, password=PASSWORD, **form)
        assert answer.status_code == 200, answer.text
        tokens: dict[str, Any] = answer.json()
        return tokens

    async def refresh(self, refresh_token: str, **form: str) -> httpx.Response:
        return await self.token(grant_type="refresh_token", refresh_token=refresh_token, **form)

    async def principal(self, access_token: str, service: str = "orders") -> Principal:
        """The token's principal, as another service verifies it with the published keys."""
        keys = JwksClient(self.internal, f"http://auth.test:{INTERNAL_PORT}/.well-known/jwks.json")
        verifier = TokenVerifier(issuer="http://gateway.test", audience=resource(service), keys=keys)
        return await verifier.verify(access_token)

    async def service_token(self, scope: str = "revocations:read") -> dict[str, str]:
        answer = await self.http.post(
            "/token",
            data={"grant_type": "client_credentials", "scope": scope},
            auth=httpx.BasicAuth("orders", "orders-secret"),
        )
        return {"Authorization": f"Bearer {answer.json()['access_token']}"}


@contextlib.asynccontextmanager
async def serving(settings: Settings, users: Users, *, ready: bool = True) -> AsyncIterator[Auth]:
    health = Health()
    app = create_app(settings, health, internal_port=INTERNAL_PORT, users_transport=users.transport)
    async with running(app) as state:

        async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, "state": dict(state)}, receive, send)

        transport = httpx.ASGITransport(with_state, client=("192.0.2.1", 4711))
        async with (
            httpx.AsyncClient(transport=transport, base_url="http://auth.test") as http,
            httpx.AsyncClient(transport=transport, base_url=f"http://auth.test:{INTERNAL_PORT}") as internal,
        ):
            await eventually(lambda: is_ready_as(health, ready))
            yield Auth(http, internal, users)


async def is_ready(health: Health) -> bool:
    return (await health.ready())[0]


async def is_ready_as(health: Health, expected: bool) -> bool:
    return await is_ready(health) is expected


@pytest.fixture
def users() -> Users:
    return Users()


@pytest.fixture
async def auth(settings: Settings, users: Users) -> AsyncIterator[Auth]:
    async with serving(settings, users) as auth:
        yield auth


Happens = Callable[..., Awaitable[None]]


@pytest.fixture
def happens(database: Database) -> Happens:
    """Processes one of users' events about a person."""

    async def happens(what: str, person: Person, *, version: int, **data: Any) -> None:
        event = Envelope(
            id=new_id(),
            type=f"users.user.{what}.v1",
            subject=str(person.user_id),
            version=version,
            time=utc_now(),
            data=json.dumps({"user_id": str(person.user_id), **data}),
        )
        received = handlers.decode(event)
        assert received is not None
        async with database.transaction() as session:
            await handlers.handle(session, received)

    return happens


@pytest.fixture
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    """The lines of level `info` and above."""
    configure_logging("auth", "api", "info", stream=io.StringIO())
    with capture_logs() as lines:
        yield lines
    configure_logging("test", "pytest", "warning")
