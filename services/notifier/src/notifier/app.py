"""The wiring of notifier's API."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import Any, TypedDict

from starlette.types import ASGIApp

from common.db.database import Database
from common.runtime.health import Health
from common.security.tokens import TokenVerifier
from common.security.verifier import token_verifier
from common.web import create_api
from notifier import routes
from notifier.mail.unsubscribe_links import UnsubscribeLinks
from notifier.settings import Settings
from notifier.unsubscribe import routes as unsubscribe_routes
from notifier.webhooks import routes as webhook_routes
from notifier.webhooks.destinations import Destinations
from notifier.webhooks.secrets import SecretBox


class State(TypedDict):
    """What the lifespan yields: `request.state`."""

    database: Database
    tokens: TokenVerifier
    destinations: Destinations
    secret_box: SecretBox
    unsubscribe_links: UnsubscribeLinks
    delivery_lease: timedelta


def create_app(
    settings: Settings,
    health: Health,
    *,
    internal_port: int | None = None,  # noqa: ARG001 - every service's factory has it; notifier has no internal API
    tokens: TokenVerifier | None = None,
) -> ASGIApp:
    """`tokens` replaces the verifier that loads keys and revocations from auth."""

    @contextlib.asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[Mapping[str, Any]]:
        async with contextlib.AsyncExitStack() as stack:
            database = await stack.enter_async_context(Database(settings))
            health.add("postgres", database.ping)
            verifier = (
                tokens if tokens is not None else await stack.enter_async_context(token_verifier(settings, health))
            )
            destinations = Destinations(settings.webhook_allow)
            stack.push_async_callback(destinations.close)
            box = SecretBox(settings.webhook_key_bytes)
            links = UnsubscribeLinks(settings.public_url, settings.webhook_key_bytes)
            yield State(
                database=database,
                tokens=verifier,
                destinations=destinations,
                secret_box=box,
                unsubscribe_links=links,
                delivery_lease=timedelta(seconds=settings.delivery_lease),
            )

    return create_api(
        settings,
        title="Waybill notifier",
        description="Notifications, mail preferences, and webhooks that receive the events of orders.",
        routers=[routes.router, unsubscribe_routes.router, webhook_routes.router],
        health=health,
        lifespan=lifespan,
    )
