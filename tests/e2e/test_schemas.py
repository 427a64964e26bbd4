"""Requests that the published OpenAPI documents allow or forbid, sent to the whole system.

None causes a 5xx, and every status is one that the document declares for the operation.
"""

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx
import hypothesis
import pytest
import schemathesis

CONTRACTS = Path(__file__).parents[2] / "contracts"
PASSWORD = secrets.token_urlsafe(18)
EXAMPLES = 10
WAITS = {str(seconds) for seconds in range(1, 31)}
"""Valid values of `wait`, each of which would take its time."""
T = TypeVar("T")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def boss(booted_stack: Any) -> str:
    """The address of an administrator whose account the requests may damage."""
    address = f"{secrets.token_hex(8)}@example.com"
    body = {"name": "Boss", "email": address, "password": PASSWORD}
    url = f"{booted_stack.status['gateway']}/users?send_welcome=false"
    assert httpx.post(url, json=body, timeout=30).status_code == 201
    booted_stack.dev("ops", "users", "promote", address, "admin")
    return address


@pytest.fixture
def bearer(stack: Any, boss: str) -> dict[str, str]:
    """A new session for each operation, since some end it."""
    form = {"grant_type": "password", "username": boss, "password": PASSWORD}
    answer = httpx.post(f"{stack.status['gateway']}/token", data=form, timeout=30)
    return {"Authorization": f"Bearer {answer.json().get('access_token', 'gone')}"}


@pytest.fixture
def gateway_url(stack: Any) -> str:
    url: str = stack.status["gateway"]
    return url


def send(case: Any, gateway_url: str, bearer: dict[str, str]) -> None:
    case.headers.pop("Authorization", None)
    if str((case.query or {}).get("wait")) in WAITS:
        case.query["wait"] = 0
    answer = case.call(base_url=gateway_url, headers=bearer, timeout=60)
    assert answer.status_code < 500, answer.text
    if case.method.upper() == case.operation.method.upper():  # other methods are tried too, and are not in the document
        assert str(answer.status_code) in case.operation.definition.raw["responses"], answer.text


def requests_to(service: str) -> Callable[[T], T]:
    """Parametrizes the test by operation, without streams: they answer for as long as a token lives."""
    document = schemathesis.openapi.from_path(CONTRACTS / service / "openapi.json").exclude(path_regex="/stream$")
    parametrized: Callable[[T], T] = document.parametrize()
    return parametrized


bounded = hypothesis.settings(
    max_examples=EXAMPLES,
    derandomize=True,  # a build must not fail by chance
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow],
)


@requests_to("auth")
@bounded
def test_responses_of_auth_are_as_declared(case: Any, gateway_url: str, bearer: dict[str, str]) -> None:
    send(case, gateway_url, bearer)


@requests_to("users")
@bounded
def test_responses_of_users_are_as_declared(case: Any, gateway_url: str, bearer: dict[str, str]) -> None:
    send(case, gateway_url, bearer)


@requests_to("orders")
@bounded
def test_responses_of_orders_are_as_declared(case: Any, gateway_url: str, bearer: dict[str, str]) -> None:
    send(case, gateway_url, bearer)


@requests_to("notifier")
@bounded
def test_responses_of_notifier_are_as_declared(case: Any, gateway_url: str, bearer: dict[str, str]) -> None:
    send(case, gateway_url, bearer)
