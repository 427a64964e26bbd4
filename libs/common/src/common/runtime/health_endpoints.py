"""The endpoints of every process, whatever its role, for probes and Prometheus."""

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Scope

from common.observability.http_metrics import metrics_text
from common.runtime.health import Health


class UnlistedRoute(Route):
    """A route that is not in the OpenAPI document. Logs and metrics show its template, as for API routes."""

    def __init__(self, path: str, endpoint: Callable[[Request], Awaitable[Response]]) -> None:
        super().__init__(path, endpoint, methods=["GET"], include_in_schema=False)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, found = super().matches(scope)
        if match != Match.NONE:
            found["route"] = self
        return match, found


def health_routes(health: Health) -> list[Route]:
    """`/health`, `/health/live`, `/health/ready` and `/metrics`; none is in the OpenAPI document."""

    async def alive(_request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def ready(_request: Request) -> Response:
        is_ready, checks = await health.ready()
        body = {"status": "ok" if is_ready else "unavailable", "checks": checks}
        return JSONResponse(body, status_code=200 if is_ready else 503)

    async def metrics(request: Request) -> Response:
        text, content_type = metrics_text(request.headers.get("accept", ""))
        return Response(text, headers={"Content-Type": content_type})

    return [
        UnlistedRoute("/health", alive),
        UnlistedRoute("/health/live", alive),
        UnlistedRoute("/health/ready", ready),
        UnlistedRoute("/metrics", metrics),
    ]


def worker_app(health: Health) -> ASGIApp:
    """The same endpoints for a process without an API (relay, consumer, deliverer)."""
    return Starlette(routes=health_routes(health))
