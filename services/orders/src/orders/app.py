"""The API of orders: all wiring is here."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any, TypedDict

from starlette.types import ASGIApp

from common.db.database import Database
from common.db.driver_pool import DriverPool
from common.feed.http import serving
from common.feed.log import Feed
from common.feed.streams import Streams
from common.runtime.health import Health
from common.security.tokens import TokenVerifier
from common.security.verifier import token_verifier
from common.web import create_api
from orders import event_routes, queries, routes
from orders.changing import ChangeOrder, group_changes
from orders.handlers import InsertOrder
from orders.placing import group_inserts
from orders.settings import Settings


class State(TypedDict):
    """What the lifespan yields: `request.state`."""

    database: Database
    driver: DriverPool
    insert_order: InsertOrder
    change_order: ChangeOrder
    tokens: TokenVerifier
    streams: Streams


def create_app(
    settings: Settings,
    health: Health,
    *,
    internal_port: int | None = None,  # noqa: ARG001 - every service takes it; orders has no internal endpoints
    tokens: TokenVerifier | None = None,
) -> ASGIApp:
    """`tokens` replaces the verifier that reads keys and revocations from auth."""

    @contextlib.asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[Mapping[str, Any]]:
        async with contextlib.AsyncExitStack() as stack:
            database = await stack.enter_async_context(Database(settings))
            health.add("postgres", database.ping)
            driver = DriverPool(
                database.endpoint,
                size=settings.driver_pool_size,
                timeout=settings.database_timeout,
                name="orders-api-driver",
            )
            stack.push_async_callback(driver.close)
            verifier = (
                tokens if tokens is not None else await stack.enter_async_context(token_verifier(settings, health))
            )
            feed = Feed(
                database,
                name="orders-api",
                owner=queries.EVENTS_CUSTOMER,
                owned=queries.CUSTOMERS_SUBJECTS,
                timeout=settings.database_timeout,
            )
            streams = await stack.enter_async_context(serving(feed, driver, verifier, health))
            yield State(
                database=database,
                driver=driver,
                insert_order=group_inserts(driver, timeout=settings.database_timeout),
                change_order=group_changes(driver, timeout=settings.database_timeout),
                tokens=verifier,
                streams=streams,
            )

    return create_api(
        settings,
        title="Waybill orders",
        description="The catalogue and its orders.",
        routers=[routes.orders, routes.products, event_routes.events],
        health=health,
        lifespan=lifespan,
    )
