"""What the published OpenAPI documents allow, and what they do not, sent to the whole system: nothing makes a 5xx, and
nothing a status that the document does not name.
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
T = TypeVar("T")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def boss(booted_stack: Any) -> str:
    """The address of an administrator whose account may come to harm."""
    address = f"{secrets.token_hex(8)}@example.com"
    body = {"name": "Boss", "email": address, "password": PASSWORD}
    url = f"{booted_stack.status['gateway']}/users?send_welcome=false"
    assert httpx.post(url, json=body, timeout=30).status_code == 201
    booted_stack.dev("ops", "users", "promote", address, "admin")
    return address


@pytest.fixture
def bearer(stack: Any, boss: str) -> dict[str, str]:
    """A session for each operation: some end it."""
    form = {"grant_type": "password", "username": boss, "password": PASSWORD}
    answer = httpx.post(f"{stack.status['gateway']}/token", data=form, timeout=30)
    return {"Authorization": f"Bearer {answer.json().get('access_token', 'gone')}"}


@pytest.fixture
def gateway_url(stack: Any) -> str:
    url: str = stack.status["gateway"]
    return url


def send(case: Any, gateway_url: str, bearer: dict[str, str]) -> None:
    case.headers.pop("Authorization", None)
    answer = case.call(base_url=gateway_url, headers=bearer, timeout=60)
    assert answer.status_code < 500, answer.text
    # The gateway's own answers have no such time, and 405 is about a method that is no operation.
    if "x-process-time" in answer.headers and answer.status_code != 405:
        assert str(answer.status_code) in case.operation.responses.status_codes, answer.text


def requests_to(service: str) -> Callable[[T], T]:
    """Makes the test one for each operation."""
    parametrized: Callable[[T], T] = schemathesis.openapi.from_path(CONTRACTS / service / "openapi.json").parametrize()
    return parametrized


bounded = hypothesis.settings(
    max_examples=EXAMPLES,
    derandomize=True,  # a build must not fail for a dice roll
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow],
)


@requests_to("auth")
@bounded
def test_no_request_to_auth_makes_a_5xx_or_what_is_not_declared(
    case: Any, gateway_url: str, bearer: dict[str, str]
) -> None:
    send(case, gateway_url, bearer)


@requests_to("users")
@bounded
def test_no_request_to_users_makes_a_5xx_or_what_is_not_declared(
    case: Any, gateway_url: str, bearer: dict[str, str]
) -> None:
    send(case, gateway_url, bearer)


@requests_to("orders")
@bounded
def test_no_request_to_orders_makes_a_5xx_or_what_is_not_declared(
    case: Any, gateway_url: str, bearer: dict[str, str]
) -> None:
    send(case, gateway_url, bearer)


@requests_to("notifier")
@bounded
def test_no_request_to_notifier_makes_a_5xx_or_what_is_not_declared(
    case: Any, gateway_url: str, bearer: dict[str, str]
) -> None:
    send(case, gateway_url, bearer)
