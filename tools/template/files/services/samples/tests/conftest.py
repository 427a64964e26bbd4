"""The API of samples on a database of its own, with tokens that a test issuer signs."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from common.db.database import Database
from common.runtime.health import Health
from common.testing.api_client import api_client
from common.testing.plugin import MakeDatabase
from common.testing.token_issuer import TokenIssuer
from samples.app import create_app
from samples.settings import Settings

MIGRATIONS = Path(__file__).parents[1] / "migrations"


@pytest.fixture
def issuer() -> TokenIssuer:
    return TokenIssuer()


@pytest.fixture
async def settings(make_database: MakeDatabase, issuer: TokenIssuer) -> Settings:
    return Settings(
        database_url=SecretStr(await make_database(MIGRATIONS)),
        amqp_url=SecretStr("amqp://nobody@broker.invalid/"),
        client_secret=SecretStr("unused"),
        public_url=issuer.issuer,
        auth_url="http://auth.invalid",
    )


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    database = Database(settings, role="test")
    yield database
    await database.close()


@pytest.fixture
async def client(settings: Settings, issuer: TokenIssuer) -> AsyncIterator[httpx.AsyncClient]:
    async with api_client(create_app(settings, Health(), tokens=issuer.verifier("samples"))) as client:
        yield client
