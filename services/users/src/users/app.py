"""The public and the internal API of users: all wiring is here."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Any, TypedDict

from starlette.types import ASGIApp

from common.db.database import Database
from common.runtime.background import background, every
from common.runtime.health import Health
from common.security.sealing import KeyEncryption
from common.security.tokens import TokenVerifier
from common.security.verifier import token_verifier
from common.web import by_port, create_api
from users import retention
from users.credentials.concurrency_limiter import ConcurrencyLimiter
from users.credentials.passwords import HashingPool
from users.routes import accounts, administration, authenticators, email_changes, internal, links, pages
from users.settings import Settings


class State(TypedDict):
    """What the lifespan yields: `request.state`."""

    settings: Settings
    database: Database
    tokens: TokenVerifier
    hashing: HashingPool
    encryption: KeyEncryption
    login_limiter: ConcurrencyLimiter
    address_limiter: ConcurrencyLimiter


def create_app(
    settings: Settings,
    health: Health,
    *,
    internal_port: int | None = None,
    tokens: TokenVerifier | None = None,
) -> ASGIApp:
    """Requests that arrive at `internal_port` reach the internal API, all others the public one.

    `tokens` replaces the verifier that reads keys and revocations from auth.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[Mapping[str, Any]]:
        async with contextlib.AsyncExitStack() as stack:
            database = await stack.enter_async_context(Database(settings))
            health.add("postgres", database.ping)
            hashing = HashingPool(
                threads=settings.password_threads, queue=settings.password_queue, patience=settings.login_patience
            )
            stack.callback(hashing.close)
            verifier = (
                tokens if tokens is not None else await stack.enter_async_context(token_verifier(settings, health))
            )
            cleanup = partial(every, retention.INTERVAL, partial(retention.delete_expired, database))
            await stack.enter_async_context(background(cleanup))
            login_limiter = ConcurrencyLimiter(timeout=settings.login_patience)
            yield State(
                settings=settings,
                database=database,
                tokens=verifier,
                hashing=hashing,
                encryption=KeyEncryption(settings.key_encryption_bytes),
                login_limiter=login_limiter,
                address_limiter=ConcurrencyLimiter(limit=1, timeout=settings.login_patience),
            )

    public = create_api(
        settings,
        title="Waybill users",
        description="People and their accounts.",
        routers=[
            accounts.router,
            authenticators.router,
            administration.router,
            links.router,
            email_changes.router,
            pages.router,
        ],
        health=health,
        lifespan=lifespan,
    )
    internal_api = create_api(
        settings,
        title="Waybill users, internal",
        description="For other services only.",
        routers=[internal.router],
        health=health,
    )
    return by_port(public, internal_api, internal_port)
