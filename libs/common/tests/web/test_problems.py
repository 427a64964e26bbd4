from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import asyncpg
import httpx
import pytest
from fastapi import HTTPException, Query
from pydantic import Field, SecretStr
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from common.errors import AppError, Conflict, Unavailable
from common.web import ApiRouter, Model, StrictModel, responses

router = ApiRouter()


class EmailTaken(Conflict):
    code, title = "email_taken", "E-mail address already in use"


class OAuthError(AppError):
    code = "invalid_grant"


class SignUp(StrictModel):
    password: Annotated[SecretStr, Field(min_length=12)]
    age: int = 1


def database_error(cause: Exception) -> DBAPIError:
    return DBAPIError("SELECT 1", {}, cause)


FAILURES: dict[str, Exception] = {
    "taken": EmailTaken(
        "Choose another.", headers={"X-Hint": "1"}, errors=[{"loc": ["email"], "msg": "m", "code": "c"}]
    ),
    "oauth": OAuthError(),
    "unavailable": Unavailable(),
    "teapot": HTTPException(418),
    "bug": ZeroDivisionError("secret detail"),
    "refused": ConnectionRefusedError(111, "Connect call failed"),
    "all-refused": OSError("Multiple exceptions: [Errno 111] Connect call failed, [Errno 111] Connect call failed"),
    "pool": PoolTimeout("QueuePool limit"),
    "slow": TimeoutError(),
    "gone": asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
    "closed": asyncpg.InterfaceError("connection is closed"),
    "starting": asyncpg.CannotConnectNowError("the database system is starting up"),
    "stopping": database_error(asyncpg.AdminShutdownError("terminating connection due to administrator command")),
    "interface": InterfaceError("SELECT 1", {}, asyncpg.InterfaceError("connection is closed")),
    "deadlock": database_error(asyncpg.DeadlockDetectedError("deadlock detected")),
    "unique": IntegrityError("INSERT", {}, asyncpg.UniqueViolationError("duplicate key (email)=(a@b.example)")),
    "missing-file": FileNotFoundError(2, "No such file"),
}
OUTAGES = [
    "refused", "all-refused", "pool", "slow", "gone", "closed", "starting", "stopping", "interface", "deadlock",
]  # fmt: skip


@router.get("/fail/{how}")
async def fail(how: str) -> None:
    raise FAILURES[how]


UNFIT = {"name": "Ada Lovelace", "age": "sesame"}


class Person(Model):
    name: str
    age: int


@router.get("/unfit")
async def unfit() -> Person:
    return UNFIT  # type: ignore[return-value]


@router.get("/invalid")
async def invalid() -> Person:
    return Person.model_validate(UNFIT)


@router.get("/items/{item_id}", responses=responses(404))
async def get_item(item_id: int, limit: Annotated[int, Query(le=100)] = 1) -> dict[str, int]:
    return {"item_id": item_id, "limit": limit}


@router.post("/items/{item_id}")
async def change_item(item_id: int, body: SignUp) -> None: ...


@router.put("/items/{item_id}")
async def put_item(item_id: int) -> None: ...


async def oauth_answer(_request: Request, error: Exception) -> Response:
    assert isinstance(error, OAuthError)
    return JSONResponse({"error": error.code}, 400)


@pytest.fixture
async def http(serve: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with serve(router, exception_handlers={OAuthError: oauth_answer}) as client:
        yield client


async def test_every_error_is_problem_json_with_its_request_id(http: httpx.AsyncClient) -> None:
    answer = await http.get("/fail/taken?token=secret", headers={"X-Request-ID": "req-1"})
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-hint"] == "1"
    assert answer.json() == {
        "type": "https://waybill.invalid/problems/email_taken",
        "title": "E-mail address already in use",
        "status": 409,
        "detail": "Choose another.",
        "instance": "/fail/taken",
        "code": "email_taken",
        "request_id": "req-1",
        "errors": [{"loc": ["email"], "msg": "m", "code": "c"}],
    }


@pytest.mark.parametrize(
    ("path", "code"), [("/nowhere", "not_found"), ("/items/1/", "not_found"), ("/%00", "not_found")]
)
async def test_an_unknown_path_is_not_found_and_never_redirected(http: httpx.AsyncClient, path: str, code: str) -> None:
    answer = await http.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, code)


async def test_a_405_names_all_methods_of_the_path(http: httpx.AsyncClient) -> None:
    for method in ("DELETE", "OPTIONS"):
        answer = await http.request(method, "/items/1")
        assert answer.status_code == 405
        assert answer.headers["allow"] == "GET, HEAD, POST, PUT"
    assert (await http.delete("/items/1")).json()["code"] == "method_not_allowed"


async def test_invalid_parameters_name_the_place_and_never_repeat_the_value(http: httpx.AsyncClient) -> None:
    answer = await http.get("/items/sesame?limit=open")
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "validation_error")
    assert [(error["loc"], error["code"]) for error in problem["errors"]] == [
        (["path", "item_id"], "int_parsing"),
        (["query", "limit"], "int_parsing"),
    ]
    assert "open" not in str(problem["errors"])


async def test_a_refused_password_is_not_echoed(http: httpx.AsyncClient) -> None:
    answer = await http.post("/items/1", json={"password": "hunter2", "age": "hunter3", "extra": "hunter4"})
    assert answer.status_code == 422
    assert "hunter" not in answer.text
    assert {error["code"] for error in answer.json()["errors"]} == {"too_short", "int_parsing", "extra_forbidden"}


async def test_the_answer_to_many_faults_is_bounded(http: httpx.AsyncClient) -> None:
    answer = await http.post("/items/1", json={f"unknown{number}": 1 for number in range(100)})  # and no password
    assert len(answer.json()["errors"]) == 100


async def test_the_answer_to_a_field_name_of_any_length_is_bounded(http: httpx.AsyncClient) -> None:
    assert len((await http.post("/items/1", json={"x" * 100_000: 1})).content) < 2000


async def test_an_unexpected_error_reveals_nothing_and_is_logged_with_its_traceback(
    http: httpx.AsyncClient, log_lines: Callable[[], list[dict[str, Any]]]
) -> None:
    answer = await http.get("/fail/bug")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "secret detail" not in answer.text
    [error, request] = log_lines()
    assert "ZeroDivisionError: secret detail" in error["exception"]
    assert error["request_id"] == request["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("path", ["/unfit", "/invalid"])
async def test_data_that_does_not_fit_its_model_is_500_and_does_not_reach_the_log(
    http: httpx.AsyncClient, log_lines: Callable[[], list[dict[str, Any]]], path: str
) -> None:
    answer = await http.get(path)
    assert answer.json()["code"] == "internal_error"
    logged = str(log_lines())
    assert "int_parsing" in logged
    for value in UNFIT.values():
        assert value not in answer.text
        assert value not in logged


@pytest.mark.parametrize("how", OUTAGES)
async def test_a_database_outage_is_503_with_retry_after(http: httpx.AsyncClient, how: str) -> None:
    answer = await http.get(f"/fail/{how}")
    assert (answer.status_code, answer.json()["code"]) == (503, "service_unavailable")
    assert int(answer.headers["retry-after"]) <= 15


@pytest.mark.parametrize("how", ["unique", "missing-file"])
async def test_a_defect_of_ours_is_not_reported_as_an_outage(http: httpx.AsyncClient, how: str) -> None:
    answer = await http.get(f"/fail/{how}")
    assert answer.status_code == 500
    assert "retry-after" not in answer.headers


async def test_unavailable_has_retry_after(http: httpx.AsyncClient) -> None:
    assert "retry-after" in (await http.get("/fail/unavailable")).headers


async def test_a_service_renders_its_own_family_of_errors(http: httpx.AsyncClient) -> None:
    answer = await http.get("/fail/oauth")
    assert (answer.status_code, answer.json()) == (400, {"error": "invalid_grant"})


async def test_any_other_http_status_is_a_problem_too(http: httpx.AsyncClient) -> None:
    answer = await http.get("/fail/teapot")
    assert (answer.status_code, answer.json()["code"]) == (418, "error")
