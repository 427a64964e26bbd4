"""Any input gets a response that the API describes, and never a 5xx."""

import json
from typing import Any
from uuid import uuid4

import pytest

VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    10**39,
    1e308,
    "",
    " ",
    "x" * 5000,
    "\x00",
    "\ud800",
    "a\ud800b@example.com",
    "\u202e",
    "' OR 1=1 --",
    "%s%n{0}$(id)",
    "ann@example.com\r\nBcc: eve@example.com",
    [],
    [[]],
    {},
    {"$gt": ""},
    "🦊" * 128,
]
BODIES = [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"a":1,"a":2}', b"[" * 10_000, b"NaN", b"{}" * 2]
VALID: dict[str, Any] = {
    "name": "Ann",
    "email": "ann@example.com",
    "password": "a lighthouse in fog 7",
    "age": 34,
    "current": "a lighthouse in fog 7",
    "new": "another lighthouse 8",
    "token": "x" * 43,
    "role": "user",
    "current_password": "a lighthouse in fog 7",
    "code": "123456",
}


async def operations(world: Any) -> list[tuple[str, str, dict[str, Any], list[str]]]:
    """Method, path, description and the body's fields of every operation."""
    document = (await world.public.get("/openapi.json")).json()
    found = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            schema = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            name = schema.get("$ref", "").rpartition("/")[2]
            fields = list(document["components"]["schemas"][name]["properties"]) if name else []
            found.append((method.upper(), path.replace("{user_id}", str(uuid4())), operation, fields))
    return found


@pytest.mark.parametrize("admin", [True, False])
async def test_no_body_causes_a_5xx(world: Any, admin: bool) -> None:
    headers = world.bearer(await world.sign_up(), admin=admin) | {"Content-Type": "application/json"}
    for method, path, operation, fields in await operations(world):
        bodies = [
            json.dumps({name: VALID[name] for name in fields} | {field: value}).encode()
            for field in fields
            for value in VALUES
        ]
        for body in (bodies + BODIES) if fields else []:
            answer = await world.public.request(method, path, content=body, headers=headers)
            assert answer.status_code < 500, (method, path, body[:200])
            assert str(answer.status_code) in operation["responses"], (method, path, body[:200], answer.status_code)
            if not answer.is_success:
                assert answer.headers["Content-Type"] == "application/problem+json"


QUERIES = (
    *("limit=x", "limit=101", "limit=-1", "limit=1&limit=2", "cursor=%00", f"cursor={'A' * 600}", "cursor=WyJ4Il0"),
    *("email=%F0%9F", "email=%00", f"email={'x' * 300}", "role=king", "status=%27", "unknown=1"),
)


@pytest.mark.parametrize("query", QUERIES)
async def test_no_query_causes_a_5xx(world: Any, query: str) -> None:
    answer = await world.public.get(f"/users?{query}", headers=world.bearer(admin=True))
    assert answer.status_code in {200, 400, 422}


@pytest.mark.parametrize(
    "user_id", ["x", "%00", "0" * 40, "..", "%F0%9F%A6%8A", "00000000-0000-0000-0000-000000000000"]
)
async def test_no_path_causes_a_5xx(world: Any, user_id: str) -> None:
    for method, suffix in (("GET", ""), ("PATCH", ""), ("POST", "/deactivate"), ("POST", "/reactivate")):
        answer = await world.public.request(
            method, f"/users/{user_id}{suffix}", json={"role": "user"}, headers=world.bearer(admin=True)
        )
        assert answer.status_code in {404, 405, 422}


async def test_unsupported_methods_are_405_even_without_a_token(world: Any) -> None:
    for method, path in (("DELETE", "/users"), ("PUT", "/me"), ("GET", "/me/password"), ("PATCH", "/password-resets")):
        assert (await world.public.request(method, path)).status_code == 405


async def test_a_body_of_another_type_is_415_and_one_too_large_413(world: Any) -> None:
    form = await world.public.post("/users", data={"name": "Ann"})
    assert form.status_code == 415
    large = await world.public.post("/users", json={"name": "x" * 2_000_000})
    assert large.status_code == 413
