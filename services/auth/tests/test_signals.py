"""What operators see of refused sign-ins, refused clients and stolen tokens: counts, and lines without addresses."""

import asyncio
import io
from collections.abc import Callable, MutableMapping
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from prometheus_client import REGISTRY

from auth.commands import log_digest
from auth.settings import Settings
from common.observability.log_limit import MOST_LINES
from common.observability.logs import configure_logging

from .conftest import PASSWORD, Auth

ADA = "ada@example.com"


def count(name: str, **labels: str) -> float:
    value = REGISTRY.get_sample_value(name, labels)
    assert value is not None, "exported from the start"
    return value


def sign_ins() -> dict[str, float]:
    return {
        outcome: count("waybill_sign_ins_total", outcome=outcome)
        for outcome in ("succeeded", "wrong", "code_missing", "throttled", "unavailable")
    }


async def sign_in(auth: Auth, password: str = PASSWORD, **headers: str) -> httpx.Response:
    form = {"grant_type": "password", "username": ADA, "password": password}
    return await auth.http.post("/token", data=form, headers=headers)


@pytest.mark.parametrize(
    ("outcome", "password", "answer"),
    [
        ("succeeded", PASSWORD, None),
        ("wrong", "not the password", None),
        ("wrong", "x" * 2000, None),
        ("code_missing", PASSWORD, lambda: httpx.Response(401, json={"code": "mfa_required"})),
        ("throttled", PASSWORD, lambda: httpx.Response(429, headers={"Retry-After": "7"})),
        ("unavailable", PASSWORD, lambda: httpx.Response(503)),
    ],
)
async def test_sign_ins_are_counted_by_outcome(
    auth: Auth, outcome: str, password: str, answer: Callable[[], httpx.Response] | None
) -> None:
    auth.users.add(ADA)
    auth.users.override = answer
    before = sign_ins()
    await sign_in(auth, password)
    assert sign_ins() == before | {outcome: before[outcome] + 1}


async def test_log_lines_of_refused_sign_ins_name_account_and_network_by_a_digest(
    auth: Auth, settings: Settings, logs: list[MutableMapping[str, Any]]
) -> None:
    auth.users.add(ADA)
    for address in ("2001:db8:1:2::3", "2001:db8:1:2::4", "203.0.113.7"):
        await sign_in(auth, "not the password", **{"X-Forwarded-For": address})
    await sign_in(auth)
    lines = [line for line in logs if line["event"] == "sign-in refused"]
    assert [line["outcome"] for line in lines] == ["wrong"] * 3
    account, home, other = [
        await digest(settings, subject) for subject in (ADA.upper(), "2001:db8:1:2::9", "203.0.113.7")
    ]
    assert [line["account"] for line in lines] == [account] * 3
    assert [line["network"] for line in lines] == [home, home, other]
    assert not [text for text in (ADA, "203.0.113.7", "2001:db8:1:2") if text in str(logs)]


async def digest(settings: Settings, subject: str) -> str:
    result = await asyncio.to_thread(CliRunner().invoke, log_digest, [subject], obj=lambda _: settings)
    return result.stdout.strip()


@pytest.mark.parametrize(
    ("credentials", "logged"),
    [(("orders", "not the secret"), "orders"), (("ada@example.com", "x"), None), (("web", "x"), "web"), (None, None)],
)
async def test_refused_client_secrets_are_counted_and_only_known_clients_named(
    auth: Auth,
    logs: list[MutableMapping[str, Any]],
    credentials: tuple[str, str] | None,
    logged: str | None,
) -> None:
    before = count("waybill_client_authentications_failed_total")
    extra: dict[str, Any] = {"auth": httpx.BasicAuth(*credentials)} if credentials is not None else {}
    answer = await auth.http.post("/token", data={"grant_type": "client_credentials"}, **extra)
    assert answer.status_code == 401
    assert count("waybill_client_authentications_failed_total") == before + 1
    assert [line["client_id"] for line in logs if line["event"] == "client authentication failed"] == [logged]


async def test_reuse_of_a_refresh_token_is_counted(auth: Auth) -> None:
    tokens = await auth.sign_in(auth.users.add(ADA))
    before = count("waybill_token_reuse_total")
    used = tokens["refresh_token"]
    for _ in range(2):
        tokens = (await auth.refresh(tokens["refresh_token"])).json()
    assert count("waybill_token_reuse_total") == before
    assert (await auth.refresh(used)).status_code == 400
    assert count("waybill_token_reuse_total") == before + 1


async def test_a_flood_of_refusals_is_counted_exactly_and_logged_up_to_a_limit(auth: Auth) -> None:
    auth.users.add(ADA)
    stream = io.StringIO()
    configure_logging("auth", "api", stream=stream)
    before, refused = sign_ins(), count("waybill_client_authentications_failed_total")
    flood = MOST_LINES + 20
    for _ in range(flood):
        assert (await sign_in(auth, "not the password")).status_code == 400
        await auth.http.post("/token", data={"grant_type": "client_credentials"})
        await auth.refresh("not a token at all")
    configure_logging("test", "pytest", "warning")
    assert sign_ins() == before | {"wrong": before["wrong"] + flood}
    assert count("waybill_client_authentications_failed_total") == refused + flood
    for event in ("sign-in refused", "client authentication failed"):
        assert stream.getvalue().count(event) == MOST_LINES
