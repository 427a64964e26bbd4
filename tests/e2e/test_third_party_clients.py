"""Unmodified third-party clients and validators, as proof that our OAuth conforms to the standards."""

import asyncio
import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from common.settings import resource
from common.testing.token_issuer import TokenIssuer
from waybill_dev.base.probes import answers_http
from waybill_dev.base.program import Program, base_environment
from waybill_dev.base.state import LOOPBACK, State, find_state
from waybill_dev.base.wheels import package_folder
from waybill_dev.supervision.process import Process

HERE = Path(__file__).parent
SOURCES = HERE / "oauth_clients"
needs_node = pytest.mark.skipif(
    not shutil.which("node") or not shutil.which("npm"), reason="node and npm are not installed"
)


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The folder with the scripts and the locked packages that they import."""
    folder = find_state().checkout / ".dev" / "oauth_clients"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "install.lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)  # another worker may be installing
        lock, installed = (SOURCES / "package-lock.json").read_text(), folder / "installed"
        for source in SOURCES.iterdir():
            shutil.copy(source, folder)
        if not installed.is_file() or installed.read_text() != lock:
            command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            subprocess.run(command, cwd=folder, check=True, capture_output=True)  # noqa: S603 - fixed words
            installed.write_text(lock)
    return folder


async def run(folder: Path, script: str, **given: Any) -> dict[str, Any]:
    """Runs a script and returns the JSON that it printed."""
    process = await asyncio.create_subprocess_exec(
        *("node", script),
        cwd=folder,
        env={**os.environ, "GIVEN": json.dumps(given)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    seen: dict[str, Any] = json.loads(output)
    return seen


@pytest.fixture
async def client(admin: Any) -> AsyncIterator[dict[str, str]]:
    """A managed client's id and secret."""
    body = {"name": "Third party", "grant_types": ["client_credentials"], "scopes": ["orders:read", "events:read"]}
    answer = await admin.client.post("/clients", json=body, headers=admin.bearer)
    assert answer.status_code == 201, answer.text
    created = answer.json()
    yield {"clientId": created["client_id"], "clientSecret": created["client_secret"]}
    await admin.client.delete(f"/clients/{created['client_id']}", headers=admin.bearer)


@needs_node
async def test_openid_client_works_unmodified(
    stack: Any, customer: Any, client: dict[str, str], node_modules: Path
) -> None:
    given = {"issuer": stack.status["gateway"], "username": customer.email, "password": customer.password, **client}
    seen = await run(node_modules, "openid-client.mjs", **given)
    assert seen["metadata"]["issuer"] == stack.status["gateway"]
    for own in (seen["own"], seen["ownByPost"]):
        assert (own["scope"], own["token_type"], own["expires_in"]) == ("orders:read", "bearer", 300)
    introspected = seen["ownIntrospected"]
    assert (introspected["active"], introspected["client_id"]) == (True, client["clientId"])
    assert seen["refreshed"]["refresh_token"] != seen["person"]["refresh_token"]
    assert seen["me"]["email"] == customer.email
    assert seen["ownRevoked"] == {"active": False}
    assert seen["afterRevocation"] == "invalid_grant"


@needs_node
async def test_oauth4webapi_works_unmodified_and_accepts_our_access_tokens(
    stack: Any, customer: Any, client: dict[str, str], node_modules: Path
) -> None:
    issuer = stack.status["gateway"]
    token = customer.tokens["access_token"]
    seen = await run(
        node_modules,
        "oauth4webapi.mjs",
        issuer=issuer,
        audience=resource("orders"),
        username=customer.email,
        password=customer.password,
        refused=[TokenIssuer(issuer).mint(), f"{token[:-8]}AAAAAAAA"],
        **client,
    )
    own, person, refreshed = seen["claims"]
    assert (own["sub"], own["client_id"]) == (client["clientId"],) * 2
    assert person["sub"] == refreshed["sub"] == customer.id
    assert person["auth_time"] == refreshed["auth_time"]
    assert all(seen["refusals"])
    assert seen["introspection"]["active"] is True
    assert seen["afterRevocation"] == {"active": False}


async def test_pyjwt_accepts_our_tokens_with_the_published_keys(stack: Any, customer: Any) -> None:
    issuer, token = stack.status["gateway"], customer.tokens["access_token"]
    keys = jwt.PyJWKClient(f"{issuer}/.well-known/jwks.json")
    key = await asyncio.to_thread(keys.get_signing_key_from_jwt, token)
    expected = {"issuer": issuer, "audience": resource("users"), "options": {"require": ["exp", "iat", "sub", "jti"]}}
    claims = jwt.decode(token, key, algorithms=["ES256", "RS256"], **expected)
    assert claims["sub"] == customer.id
    with pytest.raises(jwt.InvalidAudienceError):
        jwt.decode(token, key, algorithms=["ES256"], issuer=issuer, audience="https://elsewhere.invalid")


@pytest.fixture
async def fence(stack: Any, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """An Envoy that lets only requests with a token for orders through, by its jwt_authn filter."""
    state = State(find_state().checkout, tmp_path)
    state.make()
    port, gateway = state.port("fence"), httpx.URL(stack.status["gateway"])
    configuration = json.loads((HERE / "jwt_authn.json").read_text())
    (listener,), (cluster,) = (configuration["static_resources"][part] for part in ("listeners", "clusters"))
    listener["address"]["socket_address"]["port_value"] = port
    (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    endpoint["endpoint"]["address"]["socket_address"]["port_value"] = gateway.port
    filters = listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
    provider = filters[0]["typed_config"]["providers"]["auth"]
    provider["issuer"] = str(gateway)
    provider["remote_jwks"]["http_uri"]["uri"] = f"{gateway}/.well-known/jwks.json"
    (tmp_path / "envoy.json").write_text(json.dumps(configuration))

    async def ready() -> bool:
        return await answers_http(port, "/")

    envoy = str(package_folder("envoy") / "_bin" / "envoy")
    options = ("--disable-hot-restart", "--concurrency", "1", "--log-level", "warning")
    command = (envoy, "-c", str(tmp_path / "envoy.json"), *options)
    program = Program("fence", command, tmp_path / "fence.log", ready, environment=base_environment())
    process = Process(program, role="server")
    process.start()
    try:
        await process.until_running()
        async with httpx.AsyncClient(base_url=f"http://{LOOPBACK}:{port}") as client:
            yield client
    finally:
        await process.stop()


async def test_envoys_jwt_authn_accepts_our_tokens_and_refuses_others(stack: Any, customer: Any, fence: Any) -> None:
    async def status(token: str | None) -> int:
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        answer = await fence.get("/fenced", headers=headers)
        return int(answer.status_code)

    good = customer.tokens["access_token"]
    form = {"grant_type": "refresh_token", "refresh_token": customer.tokens["refresh_token"]}
    narrowed = await customer.client.post("/token", data=form | {"resource": resource("users")})
    for refused in (None, f"{good[:-8]}AAAAAAAA", TokenIssuer(stack.status["gateway"]).mint()):
        assert await status(refused) == 401
    assert await status(narrowed.json()["access_token"]) == 403
    assert await status(good) == 200
