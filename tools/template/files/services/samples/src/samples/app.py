"""The API of samples: the only wiring."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any, TypedDict

from starlette.types import ASGIApp

from common.db.database import Database
from common.runtime.health import Health
from common.security.tokens import TokenVerifier
from common.security.verifier import token_verifier
from common.web import create_api
from samples import routes
from samples.settings import Settings


class State(TypedDict):
    """What the lifespan yields: `request.state`."""

    database: Database
    tokens: TokenVerifier


def create_app(
    settings: Settings,
    health: Health,
    *,
    internal_port: int | None = None,  # noqa: ARG001 - of every service; samples has no internal endpoints
    tokens: TokenVerifier | None = None,
) -> ASGIApp:
    """`tokens` replaces the verifier that gets its keys from auth."""

    @contextlib.asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[Mapping[str, Any]]:
        async with contextlib.AsyncExitStack() as stack:
            database = await stack.enter_async_context(Database(settings))
            health.add("postgres", database.ping)
            verifier = (
                tokens if tokens is not None else await stack.enter_async_context(token_verifier(settings, health))
            )
            yield State(database=database, tokens=verifier)

    return create_api(
        settings,
        title="Waybill samples",
        description="Items, and an event for each.",
        routers=[routes.samples],
        health=health,
        lifespan=lifespan,
    )
