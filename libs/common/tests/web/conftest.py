import io
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar

import httpx
import pytest
import structlog
from pydantic import SecretStr

from common.observability.logs import configure_logging
from common.observability.request_log import request_log
from common.runtime.health import Health
from common.settings import ServiceSettings
from common.testing.api_client import api_client
from common.web import ApiRouter, create_api

Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


class ShopSettings(ServiceSettings):
    service: ClassVar[str] = "shop"


@pytest.fixture
def settings() -> ShopSettings:
    return ShopSettings(
        database_url=SecretStr("postgresql://nowhere.invalid/shop"),
        amqp_url=SecretStr("amqp://nowhere.invalid"),
        public_url="http://gateway.invalid",
        auth_url="http://auth.invalid",
    )


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
def serve(settings: ShopSettings, health: Health) -> Serve:
    """A client of an API with the given routers."""

    def make(
        *routers: ApiRouter, cors_origins: tuple[str, ...] = (), **options: Any
    ) -> AbstractAsyncContextManager[httpx.AsyncClient]:
        configured = settings.model_copy(update={"cors_origins": list(cors_origins)})
        return api_client(create_api(configured, title="Shop", routers=routers, health=health, **options))

    return make


@pytest.fixture
def log_lines() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """The JSON lines logged since the test began."""
    stream = io.StringIO()
    root = logging.getLogger()
    before = (root.handlers, root.level)
    configure_logging("shop", "api", "info", stream=stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    structlog.reset_defaults()
    logging.captureWarnings(capture=False)
    root.handlers, root.level = before
    request_log.configure("", "", stream, direct=False)
