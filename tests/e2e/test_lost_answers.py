"""kill -9 of auth between the commit of a refresh and its response: the client repeats the request."""

import asyncio
import base64
import contextlib
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import text

from auth.oauth.grants import limits_of
from auth.sessions import handlers as sessions
from auth.sessions.handlers import SignedIn, VerifiedPerson
from auth.settings import Settings
from auth.sign_ins.handlers import Origin
from common.db.database import Database, new_id, utc_now
from common.testing.plugin import MakeDatabase, eventually

from .wire import through, wire_to

pytestmark = pytest.mark.slow
MIGRATIONS = Path(__file__).parents[2] / "services" / "auth" / "migrations"
Api = tuple[asyncio.subprocess.Process, httpx.AsyncClient]
StartApi = Callable[[str], Awaitable[Api]]


@pytest.fixture
async def settings(make_database: MakeDatabase, amqp_url: str) -> Settings:
    return Settings(
        database_url=SecretStr(await make_database(MIGRATIONS)),
        amqp_url=SecretStr(amqp_url),
        public_url="http://gateway.test",
        auth_url="http://auth.invalid",
        users_url="http://users.invalid",
        key_encryption_key=SecretStr(base64.b64encode(b"k" * 32).decode()),
        refresh_token_secret=SecretStr(base64.b64encode(b"r" * 32).decode()),
    )


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    database = Database(settings, role="test")
    yield database
    await database.close()


@pytest.fixture
async def start(settings: Settings, tmp_path: Path) -> AsyncIterator[StartApi]:
    """Starts an API of auth as a real process, connected to the given database URL."""
    async with contextlib.AsyncExitStack() as stack:

        async def started(database_url: str) -> Api:
            secrets = tmp_path / str(new_id())
            secrets.mkdir()
            for name in ("amqp_url", "key_encryption_key", "refresh_token_secret"):
                (secrets / f"waybill_{name}").write_text(getattr(settings, name).get_secret_value())
            (secrets / "waybill_database_url").write_text(database_url)
            names = ("public_url", "auth_url", "users_url")
            environment = {f"WAYBILL_{name.upper()}": getattr(settings, name) for name in names}
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            command = (sys.executable, "-m", "auth", "api", "--host", "127.0.0.1", "--port", str(port))
            process = await asyncio.create_subprocess_exec(
                *command, env=os.environ | environment | {"WAYBILL_SECRETS_DIR": str(secrets)}
            )
            stack.push_async_callback(ended, process)
            client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30)
            await stack.enter_async_context(client)

            async def ready() -> bool:
                return (await client.get("/health/ready")).is_success

            await eventually(ready, within=30)
            return process, client

        yield started


async def ended(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()


async def signed_in(database: Database, settings: Settings) -> str:
    """The refresh token of a new person."""
    async with database.transaction() as session:
        outcome = await sessions.start_session(
            session,
            VerifiedPerson(new_id(), "user", 1),
            Origin(network="", device="", client_id="web"),
            scopes=["account"],
            resources=["https://waybill.invalid/auth"],
            known_version=None,
            secret=settings.refresh_token_bytes,
            limits=limits_of(settings),
            now=utc_now(),
        )
    assert isinstance(outcome, SignedIn)
    return outcome.refresh_token.text


async def refresh(client: httpx.AsyncClient, token: str) -> httpx.Response:
    return await client.post("/token", data={"grant_type": "refresh_token", "refresh_token": token})


async def test_a_repeated_refresh_succeeds_after_auth_died_before_its_response(
    start: StartApi, settings: Settings, database: Database
) -> None:
    direct = settings.database_url.get_secret_value()
    first = await signed_in(database, settings)

    async def committed() -> bool:
        async with database.transaction() as session:
            return bool(await session.scalar(text("SELECT place = 2 FROM sessions")))

    async with wire_to(urlsplit(direct).port or 5432) as wire:
        doomed, client = await start(through(wire, direct))
        _, other = await start(direct)
        # PostgreSQL commits and confirms it, but the confirmation never reaches auth, so the client gets no response.
        wire.hold_after(b"UPDATE sessions", b"COMMIT")
        asked = asyncio.create_task(refresh(client, first))
        await eventually(committed)
        assert not asked.done()
        await ended(doomed)
        with pytest.raises(httpx.TransportError):
            await asked
    again = await refresh(other, first)
    assert again.status_code == 200
    assert await committed()
    assert (await refresh(other, again.json()["refresh_token"])).status_code == 200
