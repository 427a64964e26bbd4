"""Notifier on a database of its own, with a real SMTP server to receive its mails."""

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from pydantic import SecretStr

from common.db.database import Database, new_id
from common.runtime.health import Health
from common.testing.api_client import api_client
from common.testing.plugin import MakeDatabase
from common.testing.token_issuer import TokenIssuer
from notifier.app import create_app
from notifier.settings import Settings
from notifier.webhooks import queue as webhook_queue

from .delivering import delivering
from .mailbox import Mailbox
from .receiver import Receiver, receiving
from .webhook_owner import Owner
from .webhook_waiting import allowing
from .world import KEY, World

MIGRATIONS = Path(__file__).parents[1] / "migrations"


@pytest.fixture(scope="session")
def issuer() -> TokenIssuer:
    return TokenIssuer()


@pytest.fixture
async def mailbox() -> AsyncIterator[Mailbox]:
    mailbox = Mailbox()
    await mailbox.open()
    yield mailbox
    await mailbox.close()


@pytest.fixture
async def settings(make_database: MakeDatabase, mailbox: Mailbox, issuer: TokenIssuer) -> Settings:
    return Settings(
        database_url=SecretStr(await make_database(MIGRATIONS)),
        amqp_url=SecretStr("amqp://nobody@broker.invalid/"),
        client_secret=SecretStr("a secret"),
        public_url=issuer.issuer,
        auth_url="http://auth.invalid",
        users_url="http://users.invalid",
        smtp_host="127.0.0.1",
        smtp_port=mailbox.port,
        smtp_connections=4,
        delivery_lease=1.0,
        webhook_key=SecretStr(base64.b64encode(KEY).decode()),
    )


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """An HTTP server that receives webhooks."""
    async with receiving() as receiver:
        yield receiver


@pytest.fixture
def webhook_settings(settings: Settings, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a deliverer that may post to `receiver`, with a lease that is long enough on a busy machine.

    The next attempt is due when a test calls `make_due`, however slow the machine is.
    """
    monkeypatch.setattr(webhook_queue, "DELAYS", (3600.0,) * 8)
    return allowing(settings.model_copy(update={"delivery_lease": 6.0}), receiver)


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    database = Database(settings, role="test")
    yield database
    await database.close()


@pytest.fixture
def world(database: Database) -> World:
    return World(database)


@pytest.fixture
async def api(settings: Settings, issuer: TokenIssuer) -> AsyncIterator[httpx.AsyncClient]:
    async with api_client(create_app(settings, Health(), tokens=issuer.verifier("notifier"))) as client:
        yield client


@pytest.fixture
async def delivering_api(webhook_settings: Settings, issuer: TokenIssuer) -> AsyncIterator[httpx.AsyncClient]:
    """An API whose webhooks are delivered."""
    app = create_app(webhook_settings, Health(), tokens=issuer.verifier("notifier"))
    async with delivering(webhook_settings), api_client(app) as client:
        yield client


@pytest.fixture
def me() -> UUID:
    return new_id()


@pytest.fixture
def owner(delivering_api: httpx.AsyncClient, issuer: TokenIssuer, me: UUID) -> Owner:
    return Owner(delivering_api, issuer.bearer(me))
