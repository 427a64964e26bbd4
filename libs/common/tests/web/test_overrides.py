"""What we rely on in FastAPI without a promise. A failure here says which override to revise for a new version."""

import inspect
from contextlib import AsyncExitStack
from typing import Annotated, Any

import fastapi.routing
from fastapi import Depends, FastAPI, File, Request
from fastapi.routing import APIRoute
from starlette.types import ASGIApp

from common.web import ApiRoute, ApiRouter

STACK = "fastapi_middleware_astack"
HANDLERS = "starlette.exception_handlers"


class Guard:
    """Admits everybody, and counts the calls."""

    is_guard = True

    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self, request: Request) -> str:  # noqa: ARG002 - a guard's signature
        self.calls += 1
        return "ada"


def layers(app: Any, until: ASGIApp) -> list[str]:
    """The middlewares around `until`, from the outermost."""
    names: list[str] = []
    while app is not until:
        names.append(type(app).__name__)
        app = app.app
    return names


def test_fastapi_has_no_layer_that_our_own_stack_does_not_replace_or_leave_out() -> None:
    """`common.web.app.Api` replaces the last two. It leaves out the others: we have our own 500, traces and limit."""
    app = FastAPI()
    assert layers(app.build_middleware_stack(), app.router) == [
        "ServerErrorMiddleware",
        "ExceptionTelemetryMiddleware",
        "AppBodyLimitMiddleware",
        "ExceptionMiddleware",
        "AsyncExitStackMiddleware",
    ]


async def test_a_handler_finds_the_scope_keys_that_the_replaced_layers_set(serve: Any) -> None:
    """`common.web.error_handlers.ProblemMiddleware` sets both."""

    async def read_scope(request: Request) -> dict[str, str]:
        return {key: type(request.scope[key]).__name__ for key in (STACK, HANDLERS)}

    plain, router = FastAPI(), ApiRouter()
    plain.get("/")(read_scope)
    router.get("/")(read_scope)
    expected = {STACK: AsyncExitStack.__name__, HANDLERS: "tuple"}
    async with serve(router) as http:
        assert (await http.get("/")).json() == expected
        http._transport.app = plain
        assert (await http.get("/")).json() == expected


async def test_a_file_of_a_form_is_closed_by_our_exit_stack(serve: Any) -> None:
    """FastAPI asserts that the stack is in the scope wherever it reads a form."""
    assert f'request.scope.get("{STACK}")' in inspect.getsource(fastapi.routing)
    forms: list[Any] = []
    router = ApiRouter()

    @router.post("/files")
    async def upload(request: Request, content: Annotated[bytes, File()]) -> int:
        forms.append(await request.form())
        return len(content)

    async with serve(router) as http:
        assert (await http.post("/files", files={"content": b"1234"})).json() == 4
    assert forms[0]["content"].file.closed


async def handler() -> None: ...


def test_a_plain_route_lists_a_guard_without_a_parameter_as_a_dependency_without_a_name() -> None:
    """`common.web.route.ApiRoute` removes exactly that dependency."""
    guard = Guard()

    async def with_parameter(name: Annotated[str, Depends(guard)]) -> None: ...

    unnamed = APIRoute("/", handler, dependencies=[Depends(guard)]).dependant.dependencies
    named = APIRoute("/", with_parameter).dependant.dependencies
    assert [(one.name, one.call) for one in unnamed] == [(None, guard)]
    assert [(one.name, one.call) for one in named] == [("name", guard)]
    assert ApiRoute("/", handler, dependencies=[Depends(guard)]).dependant.dependencies == []
    assert [one.call for one in ApiRoute("/", with_parameter).dependant.dependencies] == [guard]


async def test_fastapi_does_not_run_a_guard_that_the_route_has_removed(serve: Any) -> None:
    guard, router = Guard(), ApiRouter()
    router.get("/", dependencies=[Depends(guard)])(handler)
    async with serve(router) as http:
        assert (await http.get("/")).status_code == 200
    assert guard.calls == 1
