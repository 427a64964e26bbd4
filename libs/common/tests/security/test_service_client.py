"""Calls between services: one token for many calls, renewed in time, and one kind of failure."""

import asyncio
from base64 import b64decode
from collections.abc import Callable
from typing import ClassVar

import httpx
import pytest
from pydantic import SecretStr

from common.errors import Unavailable
from common.observability.trace import traced
from common.security.service_client import ServiceClient, http_client
from common.security.service_token import ClientCredentials
from common.settings import ClientSettings
from common.testing.plugin import eventually


class Client(ClientSettings):
    service: ClassVar[str] = "notifier"

    database_url: SecretStr = SecretStr("unused")
    amqp_url: SecretStr = SecretStr("unused")
    public_url: str = "http://unused.test"
    auth_url: str = "http://auth.test"
    client_secret: SecretStr = SecretStr("s:e c+r/e%t")


class Peers:
    """Auth's token endpoint and another service, both in this process. They answer while `answering` is set."""

    def __init__(self) -> None:
        self.now = 0.0
        self.issued = 0
        self.requests: list[httpx.Request] = []
        self.answering = asyncio.Event()
        self.answering.set()
        self.token_answer: Callable[[], httpx.Response] = self.issue
        self.answer: Callable[[httpx.Request], httpx.Response] = lambda _: httpx.Response(200, json={})
        http = http_client(httpx.MockTransport(self._handle))
        self.tokens = ClientCredentials(
            http,
            Client(),
            scope="links:issue",
            resource="https://waybill.invalid/users",
            clock=lambda: self.now,
        )
        self.users = ServiceClient(http, "http://users.test", self.tokens)

    def issue(self) -> httpx.Response:
        self.issued += 1
        return httpx.Response(200, json={"access_token": f"token-{self.issued}", "expires_in": 300})

    async def _handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        await self.answering.wait()
        return self.token_answer() if request.url.path == "/token" else self.answer(request)


def unavailable(*_: object) -> httpx.Response:
    raise httpx.ConnectError("unavailable")


async def test_the_token_request_follows_rfc_6749() -> None:
    peers = Peers()
    await peers.users.get("/internal/x")
    token_request, call = peers.requests
    assert token_request.content == (
        b"grant_type=client_credentials&scope=links%3Aissue&resource=https%3A%2F%2Fwaybill.invalid%2Fusers"
    )
    assert b64decode(token_request.headers["Authorization"].removeprefix("Basic ")) == b"notifier:s%3Ae+c%2Br%2Fe%25t"
    assert call.headers["Authorization"] == "Bearer token-1"


async def test_many_calls_share_one_token() -> None:
    peers = Peers()
    peers.answering.clear()
    calls = [asyncio.create_task(peers.users.post("/internal/x", json={"a": 1})) for _ in range(20)]

    async def is_requested() -> bool:
        return bool(peers.requests)

    await eventually(is_requested)
    peers.answering.set()
    await asyncio.gather(*calls)
    assert peers.issued == 1


async def test_the_token_is_renewed_at_80_percent_of_its_life_without_a_call_waiting() -> None:
    peers = Peers()
    assert await peers.tokens.token() == "token-1"
    peers.now = 239
    assert await peers.tokens.token() == "token-1"
    peers.now = 240
    assert await peers.tokens.token() == "token-1"
    await peers.tokens._renewal()
    assert await peers.tokens.token() == "token-2"
    assert peers.issued == 2


async def test_a_failed_renewal_affects_no_call_until_the_token_expires() -> None:
    peers = Peers()
    await peers.tokens.token()
    peers.token_answer = unavailable
    peers.now = 280
    assert await peers.tokens.token() == "token-1"
    peers.now = 291
    with pytest.raises(Unavailable):
        await peers.tokens.token()


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(unavailable, id="unavailable"),
        pytest.param(lambda: httpx.Response(401, json={"error": "invalid_client"}), id="refusing"),
        pytest.param(lambda: httpx.Response(200, text="<html>"), id="not JSON"),
        pytest.param(lambda: httpx.Response(200, json={"access_token": "x"}), id="incomplete"),
    ],
)
async def test_without_a_token_the_other_service_is_unavailable(answer: Callable[[], httpx.Response]) -> None:
    peers = Peers()
    peers.token_answer = answer
    with pytest.raises(Unavailable):
        await peers.users.get("/internal/x")


async def test_a_refused_token_is_replaced_once() -> None:
    peers = Peers()
    peers.answer = lambda request: httpx.Response(
        401 if request.headers["Authorization"] == "Bearer token-1" else 200,
        headers={"WWW-Authenticate": 'Bearer error="invalid_token"'},
    )
    assert (await peers.users.get("/internal/x")).status_code == 200
    assert peers.issued == 2


async def test_a_service_that_refuses_every_token_of_ours_is_unavailable() -> None:
    peers = Peers()
    peers.answer = lambda _: httpx.Response(401, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})
    with pytest.raises(Unavailable):
        await peers.users.get("/internal/x")
    assert peers.issued == 2


async def test_a_failing_service_is_unavailable_with_its_retry_after() -> None:
    peers = Peers()
    peers.answer = lambda _: httpx.Response(503, headers={"Retry-After": "3"})
    with pytest.raises(Unavailable) as refusal:
        await peers.users.get("/internal/x")
    assert refusal.value.headers == {"Retry-After": "3"}


async def test_a_service_that_does_not_answer_is_unavailable() -> None:
    peers = Peers()
    peers.answer = unavailable
    with pytest.raises(Unavailable):
        await peers.users.get("/internal/x")


async def test_other_client_errors_are_returned_to_the_caller() -> None:
    peers = Peers()
    peers.answer = lambda _: httpx.Response(404)
    assert (await peers.users.get("/internal/x")).status_code == 404


async def test_a_call_carries_the_request_id_and_the_trace() -> None:
    peers = Peers()
    with traced(request_id="r-1", traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01"):
        await peers.users.get("/internal/x")
    assert peers.requests[-1].headers["X-Request-ID"] == "r-1"
    assert peers.requests[-1].headers["traceparent"] == "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
