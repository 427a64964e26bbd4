"""Clients that authenticate with signed assertions (`private_key_jwt`, RFC 7523)."""

import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from auth.oauth.form import ASSERTION_TYPE
from auth.retention import run_cleanup
from common.db.database import Database, new_id

from .conftest import Auth
from .test_clients import REPORTS, Register, admin, register

__all__ = ["admin", "register"]

ISSUER = "http://gateway.test"
KEY = ec.generate_private_key(ec.SECP256R1())
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def public_jwk(key: Any, kid: str, **members: Any) -> dict[str, Any]:
    algorithm = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
    return {**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, **members}


KEYS = {"keys": [public_jwk(KEY, "one"), public_jwk(RSA_KEY, "two")]}


def claims(client_id: str, **changes: Any) -> dict[str, Any]:
    """Those of a good assertion, with changes; None leaves a claim out."""
    good = {"iss": client_id, "sub": client_id, "aud": ISSUER, "exp": int(time.time()) + 60, "jti": str(new_id())}
    return {name: value for name, value in (good | changes).items() if value is not None}


def sign(payload: dict[str, Any], key: Any = KEY, *, kid: str | None = "one", **header: Any) -> str:
    algorithm = "RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256"
    headers = ({"kid": kid} if kid is not None else {}) | header
    return jwt.encode(payload, key, algorithm=algorithm, headers=headers)


Ask = Callable[..., Awaitable[httpx.Response]]


@pytest.fixture
async def client(register: Register) -> dict[str, Any]:
    return await register(jwks=KEYS)


@pytest.fixture
def ask(auth: Auth) -> Ask:
    async def ask(assertion: str, path: str = "/token", **form: str) -> httpx.Response:
        fields = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion}
        return await auth.http.post(path, data={"grant_type": "client_credentials"} | fields | form)

    return ask


async def test_a_client_with_keys_has_no_secret_and_gets_tokens_for_its_assertions(
    auth: Auth, admin: dict[str, str], client: dict[str, Any], ask: Ask
) -> None:
    assert client["jwks"] == KEYS
    assert "client_secret" not in client
    name = client["client_id"]
    for assertion in (
        sign(claims(name)),
        sign(claims(name), RSA_KEY, kid="two"),
        sign(claims(name, aud=f"{ISSUER}/token")),
        sign(claims(name, aud=[ISSUER])),
        sign(claims(name, iat=int(time.time()), nbf=int(time.time()))),
        sign(claims(name), typ="client-authentication+jwt"),
    ):
        answer = await ask(assertion)
        assert answer.status_code == 200, answer.text
        assert (await auth.principal(answer.json()["access_token"])).subject == name
    assert (await ask(sign(claims(name)), client_id=name)).status_code == 200
    token = answer.json()["access_token"]
    described = await ask(sign(claims(name)), "/introspect", token=token)
    assert described.json()["client_id"] == name
    assert (await ask(sign(claims(name)), "/revoke", token=token)).status_code == 200
    assert (await ask(sign(claims(name)), "/introspect", token=token)).json() == {"active": False}
    secret = await auth.http.post(f"/clients/{name}/secret", headers=admin)
    assert (secret.status_code, secret.json()["code"]) == (409, "client_has_keys")
    changed = {"jwks": {"keys": [public_jwk(RSA_KEY, "three")]}}
    assert (await auth.http.patch(f"/clients/{name}", json=changed, headers=admin)).json()["jwks"] == changed["jwks"]
    assert (await ask(sign(claims(name)))).status_code == 401
    assert (await ask(sign(claims(name), RSA_KEY, kid=None))).status_code == 200  # one key need not be named
    metadata = (await auth.http.get("/.well-known/oauth-authorization-server")).json()
    for endpoint in ("token", "revocation", "introspection"):
        assert "private_key_jwt" in metadata[f"{endpoint}_endpoint_auth_methods_supported"]
        assert metadata[f"{endpoint}_endpoint_auth_signing_alg_values_supported"] == ["ES256", "RS256"]


async def test_an_assertion_is_good_once_and_forgotten_when_it_has_expired(
    database: Database, client: dict[str, Any], ask: Ask, register: Register
) -> None:
    other = await register(jwks=KEYS)
    payload = claims(client["client_id"])
    assert (await ask(sign(payload))).status_code == 200
    assert (await ask(sign(payload))).status_code == 401
    assert (await ask(sign(payload | {"exp": payload["exp"] + 1}))).status_code == 401
    assert (await ask(sign(claims(other["client_id"], jti=payload["jti"])))).status_code == 200
    failed = claims(client["client_id"])
    assert (await ask(sign(failed, ec.generate_private_key(ec.SECP256R1())))).status_code == 401
    assert (await ask(sign(failed))).status_code == 200  # the forged one has not used it up
    await run_cleanup(database)
    assert (await ask(sign(payload))).status_code == 401


async def test_assertions_that_are_refused(
    client: dict[str, Any], ask: Ask, register: Register, subtests: pytest.Subtests
) -> None:
    name, now = client["client_id"], int(time.time())
    with_secret = await register()
    stranger = ec.generate_private_key(ec.SECP256R1())
    good = sign(claims(name))
    header, payload, signature = good.split(".")
    doubled = jwt.utils.base64url_encode(b'{"sub":"x",' + json.dumps(claims(name)).encode()[1:]).decode()
    cases: dict[str, str] = {
        "no token": "x",
        "two parts": f"{header}.{payload}",
        "no signature": f"{header}.{payload}.",
        "another signature": f"{header}.{payload}.{signature[:-4]}AAAA",
        "duplicate claims": f"{header}.{doubled}.{signature}",
        "another key": sign(claims(name), stranger),
        "a key of another algorithm": sign(claims(name), RSA_KEY, kid="one"),
        "an unknown key": sign(claims(name), kid="three"),
        "no key named": sign(claims(name), kid=None),
        "a key in the header": sign(claims(name), stranger, jwk=public_jwk(stranger, "one")),
        "a key elsewhere": sign(claims(name), jku="https://evil.example/keys"),
        "an unknown extension": sign(claims(name), crit=["exp"]),
        "an access token": sign(claims(name), typ="at+jwt"),
        "no algorithm": jwt.encode(claims(name), "", algorithm="none", headers={"kid": "one"}),
        "a shared secret": jwt.encode(claims(name), "s" * 32, algorithm="HS256", headers={"kid": "one"}),
        "of another client": sign(claims(name, iss=with_secret["client_id"])),
        "for another client": sign(claims(name, sub=with_secret["client_id"])),
        "of a client with a secret": sign(claims(with_secret["client_id"])),
        "of an unknown client": sign(claims("client-x")),
        "of a first-party client": sign(claims("web")),
        "of a service": sign(claims("orders")),
        "for another server": sign(claims(name, aud="https://elsewhere.example")),
        "for two servers": sign(claims(name, aud=[ISSUER, "https://elsewhere.example"])),
        "for another endpoint": sign(claims(name, aud=f"{ISSUER}/revoke")),
        "for nobody": sign(claims(name, aud=None)),
        "expired": sign(claims(name, exp=now - 11)),
        "without an end": sign(claims(name, exp=None)),
        "with a long life": sign(claims(name, exp=now + 400)),
        "with a long life since long ago": sign(claims(name, exp=now + 60, iat=now - 300)),
        "of tomorrow": sign(claims(name, iat=now + 60, exp=now + 90)),
        "not valid yet": sign(claims(name, nbf=now + 60)),
        "with a text as date": sign(claims(name, exp=None) | {"exp": str(now + 60)}),
        "with a fraction as date": sign(claims(name, exp=None) | {"exp": now + 60.5}),
        "without an id": sign(claims(name, jti=None)),
        "with an id that is no text": sign(claims(name, jti=None) | {"jti": 7}),
        "too long": sign(claims(name, more="x" * 4096)),
    }
    for what, assertion in cases.items():
        with subtests.test(what):
            answer = await ask(assertion)
            assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    for what, form in {
        "another method, too": {"client_id": name, "client_secret": "x"},
        "another type": {"client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"},
        "no type": {"client_assertion_type": ""},
    }.items():
        with subtests.test(what):
            answer = await ask(sign(claims(name)), **form)
            assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    assert (await ask(sign(claims(name)), client_id="web")).status_code == 401
    assert (await ask("", client_id=name)).status_code == 400
    assert (await ask(good)).status_code == 200


async def test_key_sets_that_are_refused(auth: Auth, admin: dict[str, str], subtests: pytest.Subtests) -> None:
    private = {**ECAlgorithm.to_jwk(KEY, as_dict=True), "kid": "one"}
    short = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - to be refused
    key = public_jwk(KEY, "one")
    sets: dict[str, Any] = {
        "no set": None,
        "none": {},
        "empty": {"keys": []},
        "no keys": {"keys": ["x"]},
        "too many": {"keys": [{**key, "kid": str(number)} for number in range(6)]},
        "two of a name": {"keys": [key, key]},
        "without a name": {"keys": [{**key, "kid": ""}]},
        "with a name that no assertion can have": {"keys": [{**key, "kid": "clé"}]},
        "private": {"keys": [private]},
        "symmetric": {"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "one"}]},
        "short": {"keys": [public_jwk(short, "one")]},
        "for encryption": {"keys": [{**key, "use": "enc"}]},
        "another curve": {"keys": [public_jwk(ec.generate_private_key(ec.SECP384R1()), "one")]},
    }
    for what, keys in sets.items():
        with subtests.test(what):
            body = REPORTS | {"jwks": keys if keys is not None else "x"}
            assert (await auth.http.post("/clients", json=body, headers=admin)).status_code == 422
    public = REPORTS | {"jwks": KEYS, "public": True, "grant_types": ["refresh_token"]}
    assert (await auth.http.post("/clients", json=public, headers=admin)).status_code == 422
