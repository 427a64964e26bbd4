import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Header, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import Field, SecretStr
from starlette.responses import PlainTextResponse, Response

from common.web import ApiRouter, StrictModel, json_body
from common.web.json_body import MAX_MEMBERS, MAX_SEPARATORS
from common.web.pagination import Page, PageDep

MIB = 1024 * 1024
JSON = {"content-type": "application/json"}

router = ApiRouter()


class Line(StrictModel):
    sku: Annotated[str, Field(max_length=64)]
    quantity: Annotated[int, Field(ge=1, le=1000)] = 1


class Note(StrictModel):
    text: str | None = None
    lines: tuple[Line, ...] = ()
    tags: dict[str, list[str]] | None = None
    secret: SecretStr | None = None


@router.post("/notes", status_code=201)
async def write_note(body: Note) -> Note:
    return body


@router.post("/notes/import")
async def import_notes(body: Any) -> Any:
    return body


@router.post("/actions", status_code=204)
async def act() -> None: ...


@router.post("/token")
async def token(request: Request) -> PlainTextResponse:
    return PlainTextResponse((await request.body()).decode())


@router.post("/changes", status_code=204)
async def change(key: Annotated[str | None, Header(alias="Idempotency-Key")] = None) -> None: ...


@router.get("/pages")
async def pages(page: PageDep, text: str = "") -> Page[str]:
    async def fetch(*, after: Any, limit: int) -> list[str]:
        return [text]

    return await page.load(fetch, by={"text": str}, item=str)


@router.get("/notes/{name}")
async def find_note(name: str, text: Annotated[str, Query()] = "") -> dict[str, str]:
    return {"name": name, "text": text}


@pytest.fixture
async def http(serve: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with serve(router) as client:
        yield client


async def refusal(http: httpx.AsyncClient, body: bytes, path: str = "/notes") -> tuple[int, str]:
    answer = await http.post(path, content=body, headers=JSON)
    return answer.status_code, answer.json()["code"]


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[1,]",
        b"'text'",
        b'{"text": NaN}',
        b'{"text": -Infinity}',
        b'{"text": 1e999}',
        b'{"text": "a", "text": "b"}',
        b'{"lines": [{"sku": "a", "sku": "b"}]}',
        b'{"text": "\xff"}',
        b'{"text": "\xed\xa0\x80"}',
        b'{"text": "\x00"}',
        b'{"text": 1' + b"0" * 5000 + b"}",
        b"[" * 33 + b"]" * 33,
        b"[" * 100_000,
        b'{"a":' * 5000 + b"1" + b"}" * 5000,
        "\ufeff{}".encode(),
        b" ",
    ],
    ids=lambda body: repr(body[:24]),
)
async def test_malformed_json_is_400(http: httpx.AsyncClient, body: bytes) -> None:
    assert await refusal(http, body) == (400, "malformed_json")


@pytest.mark.parametrize(
    "body",
    [
        b'{"text": "a\\u0000b"}',
        b'{"text": "\\ud800"}',
        b'{"text": "\\udc00\\ud800"}',
        b'{"lines": [{"sku": "\\u0000"}]}',
        b'{"tags": {"a": ["ok", "\\udfff"]}}',
        b'{"tags": {"\\u0000": []}}',
        b'{"secret": "\\u0000"}',
    ],
)
async def test_text_that_the_database_cannot_store_is_422_wherever_it_is(http: httpx.AsyncClient, body: bytes) -> None:
    assert await refusal(http, body) == (422, "validation_error")


async def test_the_error_names_the_location_of_a_bad_text(http: httpx.AsyncClient) -> None:
    answer = await http.post("/notes", content=b'{"lines": [{"sku": "a"}, {"sku": "\\u0000"}]}', headers=JSON)
    assert [error["loc"] for error in answer.json()["errors"]] == [["body", "lines", 1, "sku"]]


@pytest.mark.parametrize("text", ["", "  kept as it is \t", "日本 😀 \u202e", "\\ud83d\\ude00", "\\n\\u0001"])
async def test_any_other_text_arrives_unchanged(http: httpx.AsyncClient, text: str) -> None:
    answer = await http.post("/notes", content=f'{{"text": "{text}"}}'.replace("\t", "\\t").encode(), headers=JSON)
    assert answer.status_code == 201
    expected = text.encode().decode("unicode_escape") if "\\" in text else text
    assert answer.json()["text"] == expected.encode("utf-16", "surrogatepass").decode("utf-16")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"unknown": 1}', "extra_forbidden"),
        (b'{"lines": [{"sku": "a", "price": 1}]}', "extra_forbidden"),
        (b'{"lines": [{"sku": "a", "quantity": 99999999999999999999999999}]}', "less_than_equal"),
        (b'{"lines": [{"sku": "a", "quantity": 1.5}]}', "int_from_float"),
        (b'{"lines": [{"quantity": 1}]}', "missing"),
        (b"[]", "model_attributes_type"),
        (b"null", "model_attributes_type"),
        (b"", "missing"),
    ],
)
async def test_what_does_not_fit_the_model_is_422(http: httpx.AsyncClient, body: bytes, code: str) -> None:
    answer = await http.post("/notes", content=body, headers=JSON)
    assert answer.status_code == 422
    assert [error["code"] for error in answer.json()["errors"]] == [code]


@pytest.mark.parametrize(
    "content_type",
    [
        *(
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "text/json",
            "json",
            "",
        ),
        *("application/json-patch+json", "application/merge-patch+json", "application/cloudevents+json"),
        *("application/json; charset=utf-16", "application/json;charset=latin-1", "application/jsonx"),
    ],
)
async def test_a_body_without_a_json_content_type_is_415(http: httpx.AsyncClient, content_type: str) -> None:
    answer = await http.post("/notes", content=b"{}", headers={"content-type": content_type})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", 'Application/JSON;Charset="UTF-8"'])
async def test_json_in_utf_8_is_accepted(http: httpx.AsyncClient, content_type: str) -> None:
    assert (await http.post("/notes", content=b"{}", headers={"content-type": content_type})).status_code == 201


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity", "utf-8", ""])
async def test_a_body_with_a_content_encoding_is_415(http: httpx.AsyncClient, encoding: str) -> None:
    answer = await http.post("/notes", content=b"{}", headers=JSON | {"content-encoding": encoding})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
    assert answer.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(("first", "second"), [("a", "b"), ("a", "a"), ("a", "")])
async def test_a_header_that_may_come_once_and_comes_twice_is_400(
    http: httpx.AsyncClient, first: str, second: str
) -> None:
    answer = await http.post("/changes", headers=[("Idempotency-Key", first), ("idempotency-key", second)])
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
    assert (await http.post("/changes", headers={"Idempotency-Key": first})).status_code == 204


async def test_two_content_types_are_400(http: httpx.AsyncClient) -> None:
    twice = [("Content-Type", "text/plain"), ("Content-Type", "application/json")]
    answer = await http.post("/notes", content=b"{}", headers=twice)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({f"unknown{number}": 0 for number in range(50_000)}).encode(),
        b"[" * MIB,
        b"[" + b"{}," * 300_000 + b"{}]",
        b"[" + b"0," * 500_000 + b"0]",
        b'{"lines": [' + b"[]," * 300_000 + b"[]]}",
        b'{"text": "' + b"," * (MIB - 20) + b'"}',
    ],
    ids=lambda body: repr(body[:12]),
)
async def test_a_body_of_too_many_values_is_400_and_never_parsed(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    class Parser:
        def decode(self, _text: str) -> Any:
            raise AssertionError("parsed")

    monkeypatch.setattr(json_body, "_DECODER", Parser())
    assert await refusal(http, body) == (400, "malformed_json")


async def test_an_object_of_too_many_members_is_400(http: httpx.AsyncClient) -> None:
    members = {f"unknown{number}": 0 for number in range(MAX_MEMBERS + 1)}
    assert await refusal(http, json.dumps(members).encode()) == (400, "malformed_json")
    assert await refusal(http, json.dumps({"lines": [{"sku": "a"}, members]}).encode()) == (400, "malformed_json")
    del members["unknown0"]
    assert await refusal(http, json.dumps(members).encode()) == (422, "validation_error")


async def test_the_validator_builds_a_bounded_number_of_errors(serve: Any) -> None:
    built = 0

    async def count(_request: Request, error: Exception) -> Response:
        nonlocal built
        assert isinstance(error, RequestValidationError)
        built = len(error.errors())
        return Response(status_code=422)

    unknown = {f"u{number}": 0 for number in range(MAX_MEMBERS)}
    body = json.dumps({"lines": [unknown] * (MAX_SEPARATORS // (MAX_MEMBERS + 1))}).encode()
    async with serve(router, exception_handlers={RequestValidationError: count}) as http:
        assert (await http.post("/notes", content=body, headers=JSON)).status_code == 422
    assert 0 < built <= MAX_SEPARATORS


async def test_a_post_without_a_body_needs_no_content_type(http: httpx.AsyncClient) -> None:
    assert (await http.post("/actions")).status_code == 204


async def chunks(count: int, size: int = 64 * 1024) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"x" * size


@pytest.mark.parametrize("path", ["/notes", "/token", "/actions"])
async def test_a_body_over_one_mebibyte_is_413(http: httpx.AsyncClient, path: str) -> None:
    answer = await http.post(path, content=b"x" * (MIB + 1), headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")


@pytest.mark.parametrize("path", ["/notes", "/token"])
async def test_a_body_in_chunks_is_cut_off_at_one_mebibyte(http: httpx.AsyncClient, path: str) -> None:
    answer = await http.post(path, content=chunks(17), headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")


async def test_a_body_of_exactly_one_mebibyte_is_read(http: httpx.AsyncClient) -> None:
    assert (await http.post("/token", content=b"x" * MIB)).status_code == 200
    assert (await http.post("/token", content=chunks(16))).status_code == 200


async def test_nul_in_the_address_is_422(http: httpx.AsyncClient) -> None:
    for address, place in (("/notes/a%00b", "path"), ("/notes/a?text=%00", "query"), ("/notes/a?%00=", "query")):
        answer = await http.get(address)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["loc"] == [place]


@pytest.mark.parametrize("cursor", ["%00", "a%00b", "%00&text=a", "W10%00"])
async def test_a_cursor_with_nul_is_an_invalid_cursor(http: httpx.AsyncClient, cursor: str) -> None:
    answer = await http.get(f"/pages?cursor={cursor}")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_cursor")


@pytest.mark.parametrize("query", ["text=%00", "cursor=a&text=%00", "limit=%00", "%00cursor=a", "cursor%00=a"])
async def test_nul_in_any_other_parameter_of_a_list_is_422(http: httpx.AsyncClient, query: str) -> None:
    assert (await http.get(f"/pages?{query}")).status_code == 422
