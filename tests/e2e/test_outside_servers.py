"""`./dev` on external PostgreSQL and RabbitMQ servers."""

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from common.testing.plugin import private_vhost
from waybill_dev.services.programs import ROLES
from waybill_dev.testing import StackUnderTest


@pytest.fixture
async def postgres_url() -> AsyncIterator[str]:
    """A server without our databases, before and after the test: only the stack that wrote them can decrypt them."""
    url = os.environ["WAYBILL_TEST_POSTGRES_URL"]
    admin = await asyncpg.connect(url)

    async def clear() -> None:
        for service in ROLES:
            await admin.execute(f"DROP DATABASE IF EXISTS {service} WITH (FORCE)")

    await clear()
    yield url
    await clear()
    await admin.close()


@pytest.mark.slow
async def test_an_order_is_processed_on_external_servers(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with private_vhost() as amqp_url:
        monkeypatch.setenv("WAYBILL_POSTGRES_URL", postgres_url)
        monkeypatch.setenv("WAYBILL_AMQP_URL", amqp_url)
        outside = StackUnderTest(tmp_path / "state")
        outside.dev("up", "--detach", "--owner", str(os.getpid()))
        try:
            status = json.loads(outside.dev("status", "--json"))
            nothing = dict.fromkeys(("management_url", "metrics_url", "pid"))
            assert status["broker"] == {"amqp_url": amqp_url, "state": "external", **nothing}
            assert status["postgres"]["pid"] is None
            assert "We have your order" in outside.dev("demo")
        finally:
            outside.dev("down")
