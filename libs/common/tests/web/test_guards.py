from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, Request

from common.errors import Forbidden, Unauthorized
from common.web import ApiRouter, StrictModel

router = ApiRouter()


class Guard:
    """Admits every caller with an `Authorization` header; counts its calls, and those that had to read the header."""

    is_guard = True

    def __init__(self, *, only: str | None = None) -> None:
        self.scopes = ("orders:write",) if only is None else ("orders:admin",)
        self._only = only
        self.calls = self.reads = 0

    async def __call__(self, request: Request) -> str:
        self.calls += 1
        known: str | None = getattr(request.state, "name", None)
        if known is None:
            if "authorization" not in request.headers:
                raise Unauthorized(headers={"WWW-Authenticate": "Bearer"})
            self.reads += 1
            known = request.state.name = request.headers["authorization"]
        if self._only is not None and known != self._only:
            raise Forbidden
        return known


guard = Guard()
root_only = Guard(only="root")


class Body(StrictModel):
    text: str


async def shouted(name: Annotated[str, Depends(guard)]) -> str:
    return name.upper()


@router.post("/plain/{number}")
async def plain(number: int, body: Body, name: Annotated[str, Depends(guard)]) -> str:
    return name


@router.post("/nested")
async def nested(body: Body, name: Annotated[str, Depends(shouted)]) -> str:
    return name


@router.post("/listed", dependencies=[Depends(root_only)])
async def listed(body: Body) -> str:
    return body.text


guarded_router = ApiRouter(prefix="/all", dependencies=[Depends(guard)])


@guarded_router.post("")
async def of_a_guarded_router(body: Body) -> str:
    return body.text


PATHS = ["/plain/1", "/nested", "/listed", "/all"]


@pytest.fixture
async def http(serve: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with serve(router, guarded_router) as client:
        yield client


@pytest.mark.parametrize("path", [*PATHS, "/plain/not-a-number"])
@pytest.mark.parametrize("body", [b"{", b'{"unknown": 1}', b"\xff", b""])
async def test_an_unauthenticated_caller_learns_nothing_about_the_body(
    http: httpx.AsyncClient, path: str, body: bytes
) -> None:
    answer = await http.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", PATHS)
async def test_the_wrong_content_type_comes_after_the_guard(http: httpx.AsyncClient, path: str) -> None:
    assert (await http.post(path, content=b"x")).status_code == 401
    assert (await http.post(path, content=b"x", headers={"authorization": "root"})).status_code == 415


async def test_a_forbidden_caller_is_refused_before_their_body_is_read(http: httpx.AsyncClient) -> None:
    assert (await http.post("/listed", content=b"{", headers={"authorization": "ada"})).status_code == 403


@pytest.mark.parametrize(
    ("path", "expected"), [("/plain/1", "root"), ("/nested", "ROOT"), ("/listed", "t"), ("/all", "t")]
)
async def test_the_handler_gets_the_guards_principal(http: httpx.AsyncClient, path: str, expected: str) -> None:
    answer = await http.post(path, json={"text": "t"}, headers={"authorization": "root"})
    assert (answer.status_code, answer.json()) == (200, expected)


async def test_a_guard_that_no_parameter_needs_is_called_once(http: httpx.AsyncClient) -> None:
    before = root_only.calls
    await http.post("/listed", json={"text": "t"}, headers={"authorization": "root"})
    assert root_only.calls == before + 1


async def test_a_guard_works_once_for_each_request(http: httpx.AsyncClient) -> None:
    before = guard.reads
    await http.post("/nested", json={"text": "t"}, headers={"authorization": "ada"})
    assert guard.reads == before + 1


@pytest.mark.parametrize("path", PATHS)
async def test_an_unsupported_method_is_405_without_a_token(http: httpx.AsyncClient, path: str) -> None:
    assert (await http.delete(path)).status_code == 405


class OnAThread:
    def __call__(self) -> None: ...


def on_a_thread() -> None: ...


async def on_the_loop() -> None: ...


@pytest.mark.parametrize("dependency", [on_a_thread, OnAThread(), OnAThread])
def test_a_handler_or_dependency_that_is_not_async_is_refused_when_the_route_is_created(dependency: Any) -> None:
    with pytest.raises(TypeError, match="must be async"):
        ApiRouter().get("/", dependencies=[Depends(dependency)])(on_the_loop)
    with pytest.raises(TypeError, match="must be async"):
        ApiRouter().get("/")(on_a_thread)
