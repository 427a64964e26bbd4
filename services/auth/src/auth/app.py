"""The wiring of auth's API."""

import contextlib
from collections.abc import AsyncIterator
from functools import partial
from typing import TypedDict

import httpx
from fastapi import FastAPI
from starlette.types import ASGIApp, Lifespan

from auth.clients import routes as client_routes
from auth.errors import OAuthError
from auth.identity import routes as identity_routes
from auth.keys.keyring import Keyring
from auth.oauth import routes as oauth_routes
from auth.oauth.grants import TokenEndpoint
from auth.oauth.inspection import TokenInspection
from auth.oauth.own_tokens import OwnTokenSource, OwnTokenVerifier
from auth.oauth.sign_in import SignInCheck
from auth.retention import CLEANUP_SECONDS, run_cleanup
from auth.sessions import grant_routes, internal_routes
from auth.sessions import routes as session_routes
from auth.settings import Settings
from auth.sign_ins import routes as history_routes
from auth.signing_in import routes as sign_in_routes
from auth.signing_in.authorization import Authorization
from auth.signing_in.form_state import FormSeal
from auth.signing_out import routes as sign_out_routes
from common.db.database import Database
from common.runtime.background import background, every
from common.runtime.health import Health
from common.security.service_client import ServiceClient, http_client
from common.web import Api, by_port, create_api


class State(TypedDict):
    """What the lifespan yields: `request.state`."""

    settings: Settings
    database: Database
    keyring: Keyring
    tokens: OwnTokenVerifier
    token_endpoint: TokenEndpoint
    token_inspection: TokenInspection
    authorization: Authorization
    form_seal: FormSeal
    users: ServiceClient
    sign_in_check: SignInCheck


def create_app(
    settings: Settings,
    health: Health,
    *,
    internal_port: int | None = None,
    users_transport: httpx.AsyncBaseTransport | None = None,
) -> ASGIApp:
    """The public API, and on `internal_port` the one for other services. A test's `users_transport` replaces users."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        async with Database(settings) as database, http_client(users_transport) as http:
            keyring = Keyring(database, settings)
            health.add("postgres", database.ping)
            health.add("keys", keyring.check)
            cleanup = partial(every, CLEANUP_SECONDS, partial(run_cleanup, database))
            async with background(keyring.run, cleanup):
                users = ServiceClient(http, settings.users_url, OwnTokenSource(keyring, settings))
                yield State(
                    settings=settings,
                    database=database,
                    keyring=keyring,
                    tokens=OwnTokenVerifier(keyring, database, settings, audience=settings.audience),
                    token_endpoint=TokenEndpoint(settings, database, keyring, users),
                    token_inspection=TokenInspection(settings, database, keyring),
                    authorization=Authorization(settings, database, keyring),
                    form_seal=FormSeal(settings.refresh_token_bytes),
                    users=users,
                    sign_in_check=SignInCheck(database, users, settings.refresh_token_bytes),
                )

    return by_port(public_api(settings, health, lifespan=lifespan), internal_api(settings, health), internal_port)


def public_api(settings: Settings, health: Health, *, lifespan: Lifespan[FastAPI] | None = None) -> Api:
    return create_api(
        settings,
        title="Waybill auth",
        routers=[
            oauth_routes.router,
            identity_routes.router,
            sign_in_routes.router,
            sign_out_routes.router,
            session_routes.router,
            history_routes.router,
            grant_routes.router,
            client_routes.router,
        ],
        health=health,
        lifespan=lifespan,
        exception_handlers={OAuthError: oauth_routes.render_oauth_error},
    )


def internal_api(settings: Settings, health: Health) -> Api:
    """Includes the OAuth endpoints and the key set, so that a service needs only one address of auth."""
    return create_api(
        settings,
        title="Waybill auth, internal",
        routers=[internal_routes.router, oauth_routes.router],
        health=health,
        exception_handlers={OAuthError: oauth_routes.render_oauth_error},
    )
