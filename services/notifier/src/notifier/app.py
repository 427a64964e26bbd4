"""The API of notifier: the only wiring."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.types import ASGIApp

from common.access import token_verifier
from common.database import Database
from common.health import Health
from common.tokens import TokenVerifier
from common.web import create_api
from notifier.deps import State
from notifier.routes import router
from notifier.settings import NotifierSettings


def create_app(
    settings: NotifierSettings,
    health: Health,
    *,
    internal_port: int | None = None,  # noqa: ARG001 - every service's app is made alike; this one has no internal API
    tokens: TokenVerifier | None = None,
) -> ASGIApp:
    """`tokens` stands in for a verifier fed by auth."""

    @contextlib.asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[Mapping[str, Any]]:
        async with contextlib.AsyncExitStack() as stack:
            database = Database.open(settings)
            stack.push_async_callback(database.close)
            health.add("postgres", database.ping)
            verifier = (
                tokens if tokens is not None else await stack.enter_async_context(token_verifier(settings, health))
            )
            yield State(database=database, tokens=verifier)

    return create_api(
        settings,
        title="Waybill notifier",
        description="What people are told, and which of it by mail.",
        routers=[router],
        health=health,
        lifespan=lifespan,
    )
