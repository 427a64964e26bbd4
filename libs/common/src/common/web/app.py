"""Builds an API from routers, with what every service's HTTP contract promises."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fastapi import FastAPI
from starlette.types import ASGIApp, Lifespan, Receive, Scope, Send

from common.runtime.health import Health
from common.runtime.health_endpoints import health_routes
from common.settings import ServiceSettings
from common.web.cors import Cors
from common.web.docs import docs_routes
from common.web.error_handlers import HANDLERS, ProblemMiddleware
from common.web.middleware import RequestMiddleware
from common.web.openapi import document
from common.web.route import ApiRoute, ApiRouter

_NO_TELEMETRY: Final = {"tracing": False, "metrics": False, "logs": False, "operation_spans": False}


class Api(FastAPI):
    """FastAPI with this project's middleware in place of its own, so that no request pays for an unused layer.

    `build_middleware_stack` leaves out all of FastAPI's layers; `ProblemMiddleware` does their work.
    """

    def __init__(
        self, *, health: Health, cors_origins: Sequence[str], has_password_grant: bool = True, **options: Any
    ) -> None:
        super().__init__(**options)
        self._has_password_grant = has_password_grant
        self._health = health
        self._cors_origins = cors_origins

    def build_middleware_stack(self) -> ASGIApp:
        app: ASGIApp = ProblemMiddleware(self.router, self.exception_handlers)
        if self._cors_origins:
            app = Cors(app, self._cors_origins)
        return RequestMiddleware(app, health=self._health)

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = document(self, has_password_grant=self._has_password_grant)
        return self.openapi_schema


def create_api(
    settings: ServiceSettings,
    *,
    title: str,
    routers: Sequence[ApiRouter],
    health: Health,
    lifespan: Lifespan[Any] | None = None,
    version: str = "1",
    description: str = "",
    exception_handlers: Mapping[type[Exception], Any] | None = None,
) -> Api:
    """One API. Raises TypeError for a route of another class, ValueError for two operations with one name.

    `lifespan` yields the typed state that handlers find in `request.state`. An internal API that shares a process with
    a public one (see `by_port`) has no lifespan of its own. `exception_handlers` are for errors that are not rendered
    as problems, such as OAuth's (RFC 6749 §5.2); the closest class wins.
    """
    api = Api(
        health=health,
        cors_origins=settings.cors_origins,
        has_password_grant=settings.has_password_grant,
        title=title,
        version=version,
        description=description,
        lifespan=lifespan,
        routes=[*_routes(routers), *health_routes(health)],
        exception_handlers=HANDLERS | dict(exception_handlers or {}),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        openapi_url=None,
        telemetry=_NO_TELEMETRY,
    )
    api.router.routes += docs_routes(settings.service, title, api.openapi)
    return api


def _routes(routers: Sequence[ApiRouter]) -> list[ApiRoute]:
    routes: dict[str, ApiRoute] = {}
    for route in (route for router in routers for route in router.routes):
        if not isinstance(route, ApiRoute):
            raise TypeError(f"{route!r} is not an ApiRoute: use an ApiRouter, and include no router in another")
        if routes.setdefault(route.unique_id, route) is not route:
            raise ValueError(f"two operations are named {route.unique_id}")
    return list(routes.values())


def by_port(public: ASGIApp, internal: ASGIApp, port: int | None) -> ASGIApp:
    """One app for a process with two sockets: the internal API serves `port`, the public API serves the rest.

    The lifespan is the public API's; both share its state.
    """

    async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
        # A socket without a port (a Unix domain socket) never belongs to the internal API.
        is_internal = port is not None and scope["type"] == "http" and (scope["server"] or ("", None))[1] == port
        await (internal if is_internal else public)(scope, receive, send)

    return dispatch
