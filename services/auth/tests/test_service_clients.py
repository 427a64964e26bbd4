"""Our own services as OAuth clients: the client credentials grant."""

import hashlib

import httpx
import pytest

from auth.settings import Settings
from common.security.tokens import InvalidToken
from common.settings import resource

from .conftest import Auth, Users, serving


@pytest.mark.parametrize("by", ["header", "form"])
async def test_a_service_gets_a_token_for_itself(auth: Auth, by: str) -> None:
    form = {"grant_type": "client_credentials", "scope": "links:issue", "resource": resource("users")}
    headers = {}
    if by == "header":
        # RFC 6749 §2.3.1: id and secret are form-encoded first.
        headers = {"Authorization": httpx.BasicAuth("notifier", "s%3Ae+c%2Br%2Fe%25t")._auth_header}
    else:
        form |= {"client_id": "notifier", "client_secret": "s:e c+r/e%t"}
    answer = await auth.http.post("/token", data=form, headers=headers)
    assert answer.status_code == 200
    assert answer.json().keys() == {"access_token", "token_type", "expires_in", "scope"}
    principal = await auth.principal(answer.json()["access_token"], "users")
    assert principal.is_client
    assert (principal.client_id, principal.scopes, principal.roles) == (
        "notifier",
        frozenset({"links:issue"}),
        frozenset(),
    )
    with pytest.raises(InvalidToken):
        await auth.principal(answer.json()["access_token"], "orders")


async def test_a_service_gets_all_its_scopes_by_default(auth: Auth) -> None:
    answer = await auth.http.post(
        "/token", data={"grant_type": "client_credentials"}, auth=httpx.BasicAuth("orders", "orders-secret")
    )
    assert answer.json()["scope"] == "revocations:read"


async def test_a_service_may_use_its_old_and_its_new_secret_while_both_are_listed(
    settings: Settings, users: Users
) -> None:
    old = next(client for client in settings.service_clients if client.client_id == "orders")
    new = old.model_copy(update={"secret_sha256": hashlib.sha256(b"new-secret").hexdigest()})
    for listed, expected in (((old, new), [200, 200, 401]), ((new,), [401, 200, 401])):
        async with serving(settings.model_copy(update={"service_clients": listed}), users) as auth:
            answers = [
                await auth.http.post(
                    "/token", data={"grant_type": "client_credentials"}, auth=httpx.BasicAuth("orders", secret)
                )
                for secret in ("orders-secret", "new-secret", "another")
            ]
            assert [answer.status_code for answer in answers] == expected
