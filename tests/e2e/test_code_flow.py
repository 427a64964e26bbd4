"""The authorization code flow through the gateway: unmodified clients, and a crash between a code's use and answer."""

import asyncio
import os
import secrets
import signal
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from authlib.integrations.httpx_client import AsyncOAuth2Client
from joserfc import jwt
from joserfc.jwk import KeySet

from common.testing.plugin import eventually

from .test_third_party_clients import needs_node, node_modules, run
from .visitor import challenge_of, sent, visit

__all__ = ["node_modules"]

CALLBACK = "https://shop.example/signed-in"
LOOPBACK = "http://127.0.0.1:54321/signed-in"
SCOPES = ["openid", "profile", "email", "orders:read", "orders:write"]


@pytest.fixture
async def clients(admin: Any) -> AsyncIterator[dict[str, dict[str, Any]]]:
    """A client with a secret, and one without."""
    body = {"grant_types": ["authorization_code", "refresh_token"], "scopes": SCOPES}
    wanted: dict[str, dict[str, Any]] = {
        "shop": {
            "name": "Shop",
            "redirect_uris": [CALLBACK],
            "post_logout_redirect_uris": ["https://shop.example/bye"],
        },
        "app": {"name": "App", "redirect_uris": ["http://127.0.0.1/signed-in"], "public": True},
    }
    made = {}
    for name, own in wanted.items():
        answer = await admin.client.post("/clients", json=body | own, headers=admin.bearer)
        assert answer.status_code == 201, answer.text
        made[name] = answer.json()
    yield made
    for client in made.values():
        await admin.client.delete(f"/clients/{client['client_id']}", headers=admin.bearer)


@needs_node
async def test_openid_client_does_the_whole_flow_unmodified(
    stack: Any, customer: Any, clients: Any, node_modules: Any
) -> None:
    issuer, shop = stack.status["gateway"], clients["shop"]
    seen = await run(
        node_modules,
        "openid-client-code.mjs",
        issuer=issuer,
        clientId=shop["client_id"],
        clientSecret=shop["client_secret"],
        redirectUri=CALLBACK,
        afterSignOut="https://shop.example/bye",
        username=customer.email,
        password=customer.password,
    )
    assert seen["claims"]["sub"] == seen["refreshed"]["sub"] == customer.id
    expected = {"sub": customer.id, "name": "Ada Lovelace", "email": customer.email, "email_verified": False}
    assert seen["userinfo"] == expected
    assert seen["left"] == "https://shop.example/bye?state=bye"
    assert seen["afterwards"] == "invalid_grant"


@needs_node
async def test_oauth4webapi_does_the_whole_flow_unmodified(
    stack: Any, customer: Any, clients: Any, node_modules: Any
) -> None:
    seen = await run(
        node_modules,
        "oauth4webapi-code.mjs",
        issuer=stack.status["gateway"],
        clientId=clients["app"]["client_id"],
        redirectUri=LOOPBACK,
        username=customer.email,
        password=customer.password,
    )
    assert seen["claims"]["sub"] == customer.id
    assert seen["userinfo"] == {"sub": customer.id, "email": customer.email, "email_verified": False}
    assert seen["refreshed"] is True


async def test_authlibs_client_does_the_whole_flow_unmodified(gateway: Any, customer: Any, clients: Any) -> None:
    shop = clients["shop"]
    server = (await gateway.get("/.well-known/openid-configuration")).json()
    async with AsyncOAuth2Client(
        shop["client_id"],
        shop["client_secret"],
        scope="openid profile orders:write",
        redirect_uri=CALLBACK,
        code_challenge_method="S256",
        token_endpoint=server["token_endpoint"],
    ) as client:
        verifier = secrets.token_urlsafe(32)
        url, state = client.create_authorization_url(
            server["authorization_endpoint"], code_verifier=verifier, nonce="n1"
        )
        back = await visit(gateway, url, {"username": customer.email, "password": customer.password})
        tokens = await client.fetch_token(authorization_response=back, state=state, code_verifier=verifier)
        keys = KeySet.import_key_set((await gateway.get("/.well-known/jwks.json")).json())
        claims = jwt.decode(tokens["id_token"], keys, algorithms=["ES256"]).claims
        assert (claims["sub"], claims["aud"], claims["nonce"]) == (customer.id, shop["client_id"], "n1")
        assert (await client.get(server["userinfo_endpoint"])).json() == {"sub": customer.id, "name": "Ada Lovelace"}
        refreshed = await client.refresh_token()
        assert refreshed["refresh_token"] != tokens["refresh_token"]
        order = {"lines": [{"sku": "E2E-LAMP", "quantity": 1}]}
        placed = await client.post(f"{gateway.base_url}/orders", json=order)
        assert (placed.status_code, placed.json()["customer_id"]) == (201, customer.id)
        token = {"Authorization": f"Bearer {client.token['access_token']}"}
        for method, path in (("GET", "/me"), ("PATCH", "/me"), ("DELETE", "/me"), ("PUT", "/me/password")):
            assert (await gateway.request(method, path, headers=token)).status_code == 403
        assert (await gateway.get("/notifications", headers=token)).status_code == 403
        assert (await gateway.get("/products", headers=token)).status_code == 200


async def is_back(gateway: httpx.AsyncClient) -> bool:
    return (await gateway.get("/sessions")).status_code == 401


@pytest.mark.slow
async def test_a_crash_between_a_codes_use_and_its_answer_leaves_one_session_or_none(
    stack: Any, gateway: httpx.AsyncClient, customer: Any, clients: Any
) -> None:
    """Kills every API of auth while exchanges are under way, and lets the clients try again as a client would."""
    app, issuer, verifier = clients["app"], stack.status["gateway"], secrets.token_urlsafe(32)
    url = httpx.URL(f"{issuer}/authorize").copy_merge_params(
        {
            "response_type": "code",
            "client_id": app["client_id"],
            "redirect_uri": LOOPBACK,
            "scope": "orders:read",
            "code_challenge": challenge_of(verifier),
            "code_challenge_method": "S256",
        }
    )
    person = {"username": customer.email, "password": customer.password}
    form = {"grant_type": "authorization_code", "client_id": app["client_id"], "redirect_uri": LOOPBACK}
    for delay in (0.0, 0.004, 0.012):
        location = await visit(gateway, str(url), person)
        code = form | {"code": sent(location)["code"], "code_verifier": verifier}
        first = asyncio.create_task(gateway.post("/token", data=code))
        await asyncio.sleep(delay)  # where the blow falls, not a wait
        for process in stack.status["services"]["auth"]["processes"]:
            if process["role"] == "api":
                os.kill(process["pid"], signal.SIGKILL)
        answers = [
            each for each in await asyncio.gather(first, return_exceptions=True) if isinstance(each, httpx.Response)
        ]
        await eventually(lambda: is_back(gateway), within=30)
        answers.append(await gateway.post("/token", data=code))
        granted = [answer for answer in answers if answer.status_code == 200]
        assert len(granted) <= 1
        assert all(answer.status_code in {200, 400, 502, 503} for answer in answers)
        listed = (await gateway.get("/sessions", headers=customer.bearer)).json()["items"]
        live = [each for each in listed if each["client_id"] == app["client_id"]]
        assert len(live) == (1 if answers[-1].status_code == 200 else 0)
        for each in live:
            await gateway.delete(f"/sessions/{each['id']}", headers=customer.bearer)
