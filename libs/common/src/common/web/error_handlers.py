"""Turns exceptions into answers, in one place for all services."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, Final

from fastapi.exceptions import RequestValidationError, ResponseValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, ExceptionHandler, Receive, Scope, Send

from common.db.outages import is_outage
from common.errors import AppError
from common.observability.log_limit import limited_logger
from common.web.problems import TITLES, problem

log = limited_logger(__name__)

MAX_FAULTS: Final = 100
_MAX_LOC_PART: Final = 100
"""Characters of one part of a fault's `loc`: it may be an unknown field's name, whose length the sender chooses."""
_RETRY_AFTER: Final = {"Retry-After": "2"}


async def _app_error(request: Request, error: AppError) -> Response:
    headers = error.headers
    if error.status in (429, 503):
        headers = _RETRY_AFTER | headers
    return problem(request, error.status, error.code, error.title, error.detail, headers=headers, errors=error.errors)


async def _http_exception(request: Request, error: HTTPException) -> Response:
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(sorted(_allowed_methods(request)))
    code, title = TITLES.get(error.status_code, ("error", "Error"))
    return problem(request, error.status_code, code, title, headers=headers)


def _allowed_methods(request: Request) -> set[str]:
    """The methods of all routes with this path (RFC 9110 §15.5.6). Starlette names only the first route's."""
    methods: set[str] = set()
    for route in request.app.routes:
        if route.matches(request.scope)[0] != Match.NONE:
            methods |= route.methods
    return methods | {"HEAD"} if "GET" in methods else methods


async def _validation_error(request: Request, error: RequestValidationError) -> Response:
    return problem(
        request,
        422,
        "validation_error",
        "Invalid request",
        "The request is not valid for this operation. See `errors`.",
        errors=[_fault(part) for part in error.errors()[:MAX_FAULTS]],
    )


def _fault(part: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves out the input and the context, which may hold a password. The message names only what is expected."""
    loc = [step[:_MAX_LOC_PART] if isinstance(step, str) else step for step in part["loc"]]
    return {"loc": loc, "msg": part["msg"], "code": part["type"]}


async def _disconnected(_request: Request, _error: Exception) -> Response:
    return Response(status_code=499)  # for the request's log line and metric; the client is gone


async def _invalid_answer(request: Request, error: ResponseValidationError) -> Response:
    """Our own answer does not fit its model. FastAPI's message would put its data into the log."""
    log.error("answer does not fit its model", faults=[f"{part['loc']}: {part['type']}" for part in error.errors()])
    return _internal_error(request)


async def _unexpected(request: Request, error: Exception) -> Response:
    if is_outage(error):
        log.warning("backing service unavailable", error=type(error).__name__, cause=str(error)[:300])
        return problem(
            request, 503, "service_unavailable", "Temporarily unavailable", "Try again soon.", headers=_RETRY_AFTER
        )
    log.error("unexpected error", exc_info=error)
    return _internal_error(request)


def _internal_error(request: Request) -> Response:
    return problem(request, 500, *TITLES[500], "The error was logged with this request id.")


HANDLERS: Final[dict[type[Exception], Any]] = {
    AppError: _app_error,
    HTTPException: _http_exception,
    RequestValidationError: _validation_error,
    ResponseValidationError: _invalid_answer,
    ClientDisconnect: _disconnected,
    Exception: _unexpected,
}


class ProblemMiddleware:
    """Renders exceptions as answers. Inside a route, Starlette uses the same handlers.

    Replaces Starlette's ExceptionMiddleware and FastAPI's AsyncExitStackMiddleware at a quarter of their cost. For
    that it sets the private scope keys that those two set; `test_overrides.py` fails when FastAPI changes them.
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
        except Exception as error:  # noqa: BLE001 - every error gets an answer
            handler = next(self._handlers[kind] for kind in type(error).__mro__ if kind in self._handlers)
            response: Response = await handler(Request(scope, receive), error)  # type: ignore[arg-type,misc]
            await response(scope, receive, send)
