"""From what is raised to what is answered, in one place for all services."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, Final

import structlog
from fastapi.exceptions import RequestValidationError, ResponseValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, ExceptionHandler, Receive, Scope, Send

from common.db.outages import is_outage
from common.errors import AppError
from common.web.problems import TITLES, problem

log = structlog.get_logger(__name__)

MAX_FAULTS: Final = 100
_MAX_STEP: Final = 100
"""Characters of a step of a fault's place: an unknown field's name is as long as its sender likes."""
_RETRY_AFTER: Final = {"Retry-After": "2"}


async def _app_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, AppError)  # noqa: S101 - Starlette dispatches by type; this tells the type checker
    headers = error.headers
    if error.status in (429, 503):
        headers = _RETRY_AFTER | headers
    return problem(request, error.status, error.code, error.title, error.detail, headers=headers, errors=error.errors)


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - as above
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(sorted(_allowed_methods(request)))
    code, title = TITLES.get(error.status_code, ("error", "Error"))
    return problem(request, error.status_code, code, title, headers=headers)


def _allowed_methods(request: Request) -> set[str]:
    """What the path allows over all routes (RFC 9110 §15.5.6); the framework names only the first route's methods."""
    methods: set[str] = set()
    for route in request.app.routes:
        if route.matches(request.scope)[0] != Match.NONE:
            methods |= route.methods
    return methods | {"HEAD"} if "GET" in methods else methods


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - as above
    return problem(
        request,
        422,
        "validation_error",
        "Invalid request",
        "The request does not have the form this operation takes; see `errors`.",
        errors=[_fault(part) for part in error.errors()[:MAX_FAULTS]],
    )


def _fault(part: Mapping[str, Any]) -> dict[str, Any]:
    """Drops the input and the context, which may be a password; the message names expectations only."""
    loc = [step[:_MAX_STEP] if isinstance(step, str) else step for step in part["loc"]]
    return {"loc": loc, "msg": part["msg"], "code": part["type"]}


async def _disconnected(_request: Request, _error: Exception) -> Response:
    return Response(status_code=499)  # nobody receives it; the request's log line and metric tell what happened


async def _unfit_answer(request: Request, error: Exception) -> Response:
    """An answer of ours that does not fit its model. The framework's message would put the data into the log."""
    assert isinstance(error, ResponseValidationError)  # noqa: S101 - as above
    log.error("answer does not fit its model", faults=[f"{part['loc']}: {part['type']}" for part in error.errors()])
    return _internal_error(request)


async def _unexpected(request: Request, error: Exception) -> Response:
    if is_outage(error):
        log.warning("a backing service is away", error=type(error).__name__, cause=str(error)[:300])
        return problem(
            request, 503, "service_unavailable", "Temporarily unavailable", "Try again soon.", headers=_RETRY_AFTER
        )
    log.error("unexpected error", exc_info=error)
    return _internal_error(request)


def _internal_error(request: Request) -> Response:
    return problem(request, 500, *TITLES[500], "It was recorded under this request id.")


HANDLERS: Final[dict[type[Exception], ExceptionHandler]] = {
    AppError: _app_error,
    HTTPException: _http_exception,
    RequestValidationError: _validation_error,
    ResponseValidationError: _unfit_answer,
    ClientDisconnect: _disconnected,
    Exception: _unexpected,
}


class ProblemMiddleware:
    """Renders what is raised outside of a route (404, 405); inside, Starlette uses the same handlers.

    It stands for Starlette's ExceptionMiddleware and FastAPI's AsyncExitStackMiddleware, at a quarter of their cost.
    """

    def __init__(self, app: ASGIApp, handlers: Mapping[Any, ExceptionHandler]) -> None:
        self._app = app
        self._handlers = handlers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["starlette.exception_handlers"] = (self._handlers, {})
        try:
            async with AsyncExitStack() as scope["fastapi_middleware_astack"]:
                await self._app(scope, receive, send)
        except Exception as error:  # noqa: BLE001 - every error gets its answer
            handler = next(self._handlers[kind] for kind in type(error).__mro__ if kind in self._handlers)
            response: Response = await handler(Request(scope, receive), error)  # type: ignore[arg-type,misc]
            await response(scope, receive, send)
