"""The answers of a guarded route to callers with and without the required rights."""

import time
from collections.abc import AsyncIterator
from typing import Annotated

import httpx
import pytest
from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from common.errors import AppError
from common.security.guards import Guard, authenticate, recent_sign_in, require_scopes
from common.security.tokens import Principal
from common.testing.token_issuer import TokenIssuer

ISSUER = TokenIssuer()
PrincipalDep = Annotated[Principal, Depends(authenticate)]


def create_app() -> FastAPI:
    app = FastAPI()

    @app.exception_handler(AppError)
    async def refused(request: Request, error: AppError) -> Response:
        return JSONResponse({"code": error.code}, status_code=error.status, headers=error.headers)

    @app.get("/me")
    async def me(principal: PrincipalDep, request: Request) -> dict[str, str]:
        return {"subject": principal.subject, "logged": request.state.principal.client_id}

    @app.get("/staff", dependencies=[Depends(Guard(roles=("staff", "admin")))])
    async def staff() -> None: ...

    @app.get("/keys", dependencies=[Depends(Guard(roles=("admin",))), Depends(recent_sign_in)])
    async def keys() -> None: ...

    @app.get("/catalogue", dependencies=[Depends(Guard(any_client=True))])
    async def catalogue() -> None: ...

    @app.get("/orders", dependencies=[Depends(require_scopes("orders:read"))])
    async def orders() -> None: ...

    return app


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app, verifier = create_app(), ISSUER.verifier("orders")

    async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": {"tokens": verifier}}, receive, send)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(with_state), base_url="http://orders.test") as http:
        yield http


async def test_a_valid_token_names_subject_and_client(client: httpx.AsyncClient) -> None:
    answer = await client.get("/me", headers=ISSUER.bearer("018f3b1e-0000-7000-8000-000000000001"))
    assert answer.json() == {"subject": "018f3b1e-0000-7000-8000-000000000001", "logged": "web"}


@pytest.mark.parametrize("sent", ["", "Basic d2ViOg==", "Token x", "x"])
async def test_no_bearer_token_is_challenged_without_an_error(client: httpx.AsyncClient, sent: str) -> None:
    answer = await client.get("/me", headers={"Authorization": sent} if sent else {})
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("sent", ["Bearer", "Bearer ", "Bearer x", "bearer a.b.c", f"Bearer {ISSUER.mint()}, Bearer x"])
async def test_a_wrong_token_is_challenged_as_invalid(client: httpx.AsyncClient, sent: str) -> None:
    answer = await client.get("/me", headers={"Authorization": sent})
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token")
    assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'


async def test_the_scheme_is_read_in_any_case(client: httpx.AsyncClient) -> None:
    assert (await client.get("/me", headers={"Authorization": f"bEARER {ISSUER.mint()}"})).status_code == 200


async def test_two_authorization_headers_are_refused(client: httpx.AsyncClient) -> None:
    token = f"Bearer {ISSUER.mint()}"
    answer = await client.get("/me", headers=[("Authorization", token), ("Authorization", token)])
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_request"'


async def test_a_token_in_the_query_is_ignored(client: httpx.AsyncClient) -> None:
    assert (await client.get("/me", params={"access_token": ISSUER.mint()})).status_code == 401


async def test_a_missing_scope_is_named(client: httpx.AsyncClient) -> None:
    answer = await client.get("/orders", headers=ISSUER.bearer(scope="orders:write"))
    assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")
    assert answer.headers["WWW-Authenticate"] == 'Bearer error="insufficient_scope", scope="orders:read"'
    assert (await client.get("/orders", headers=ISSUER.bearer(scope="orders:read"))).status_code == 200


@pytest.mark.parametrize(("roles", "status"), [(("user",), 403), ((), 403), (("staff",), 200), (("admin",), 200)])
async def test_one_of_the_roles_is_enough(client: httpx.AsyncClient, roles: tuple[str, ...], status: int) -> None:
    answer = await client.get("/staff", headers=ISSUER.bearer(roles=roles))
    assert answer.status_code == status
    if status == 403:
        assert answer.json()["code"] == "forbidden"
        assert answer.headers["WWW-Authenticate"] == 'Bearer error="insufficient_scope"'


async def test_what_needs_a_recent_sign_in_says_so_once_the_role_is_right(client: httpx.AsyncClient) -> None:
    now = int(time.time())
    for auth_time, role, status in (
        (now, "admin", 200),
        (now - 290, "admin", 200),
        (now - 302, "admin", 401),
        (None, "admin", 401),
        (now - 302, "user", 403),
        (now, "user", 403),
    ):
        answer = await client.get("/keys", headers=ISSUER.bearer(roles=(role,), auth_time=auth_time))
        assert answer.status_code == status, (auth_time, role)
        if status == 401:
            assert answer.json()["code"] == "insufficient_user_authentication"
            challenge = 'Bearer error="insufficient_user_authentication", max_age="300"'
            assert answer.headers["WWW-Authenticate"] == challenge


async def test_a_delegated_token_has_its_scopes_and_no_rights_of_the_persons_role(client: httpx.AsyncClient) -> None:
    """A client of others acts for an administrator who allowed it to read orders."""
    token = ISSUER.bearer(roles=("admin",), scope="orders:read", client_id="client-1")
    for path, status in (("/orders", 200), ("/catalogue", 200), ("/me", 403), ("/staff", 403), ("/keys", 403)):
        assert (await client.get(path, headers=token)).status_code == status, path
    for client_id in ("web", "console"):
        own = ISSUER.bearer(roles=("admin",), scope="orders:read", client_id=client_id)
        assert (await client.get("/staff", headers=own)).status_code == 200
