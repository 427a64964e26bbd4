"""What probes and Prometheus ask of every process, whatever its role."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from common.health import Health
from common.telemetry import METRICS_TYPE, metrics_text


def health_routes(health: Health) -> list[Route]:
    """`/health`, `/health/live`, `/health/ready` and `/metrics`; none of them is in the API's description."""

    async def alive(_request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def ready(_request: Request) -> Response:
        is_ready, checks = await health.ready()
        body = {"status": "ok" if is_ready else "unavailable", "checks": checks}
        return JSONResponse(body, status_code=200 if is_ready else 503)

    async def metrics(_request: Request) -> Response:
        return Response(metrics_text(), headers={"Content-Type": METRICS_TYPE})

    return [
        Route("/health", alive, include_in_schema=False),
        Route("/health/live", alive, include_in_schema=False),
        Route("/health/ready", ready, include_in_schema=False),
        Route("/metrics", metrics, include_in_schema=False),
    ]


def worker_app(health: Health) -> ASGIApp:
    """The same four for a process without an API (relay, consumer, deliverer)."""
    return Starlette(routes=health_routes(health))
