"""Every way a token can be wrong. All are signed by the trusted key, unless the signature is the attack."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm

from common.security.tokens import InvalidToken
from common.security.verification_keys import base64url
from common.testing.token_issuer import TokenIssuer

ISSUER = TokenIssuer()
OTHER = TokenIssuer()
ES256 = ECAlgorithm(ECAlgorithm.SHA256)


def dated(issued_at: int, expires_at: int) -> str:
    """A token with both dates in seconds from now."""
    now = int(time.time())
    return ISSUER.mint(iat=now + issued_at, exp=now + expires_at)


def parts(**claims: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    header, payload, _ = ISSUER.mint(**claims).split(".")
    return unpacked(header), unpacked(payload)


def unpacked(segment: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(base64.urlsafe_b64decode(segment + "=="))
    return value


def signed(header: str | bytes, payload: str | bytes) -> str:
    """Raw header and payload texts under the trusted key's signature."""
    texts = [text.encode() if isinstance(text, str) else text for text in (header, payload)]
    content = ".".join(base64url(text) for text in texts)
    return f"{content}.{base64url(ES256.sign(content.encode(), ISSUER._private))}"


def with_header(**changes: Any) -> str:
    header, payload = parts()
    header = {name: value for name, value in (header | changes).items() if value is not None}
    return signed(json.dumps(header), json.dumps(payload))


def with_raw_claim(name: str, literal: str) -> str:
    header, payload = parts()
    payload.pop(name, None)
    text = json.dumps(payload)
    return signed(json.dumps(header), f'{text[:-1]}, "{name}": {literal}}}')


def hmac_with_public_key() -> str:
    """Algorithm confusion (RFC 8725 §2.1): HMAC, with the published key's text as the secret."""
    header, payload = parts()
    content = ".".join(base64url(json.dumps(part).encode()) for part in (header | {"alg": "HS256"}, payload))
    public = ISSUER.key.public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return f"{content}.{base64url(hmac.digest(public, content.encode(), hashlib.sha256))}"


def rs256_under_ec_kid() -> str:
    header, payload = parts()
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return jwt.encode(payload, private, algorithm="RS256", headers=header | {"alg": "RS256"})


def tampered() -> str:
    header, _, signature = ISSUER.mint(roles=("user",)).split(".")
    _, payload = parts(roles=("admin",))
    return f"{header}.{base64url(json.dumps(payload).encode())}.{signature}"


def respelled_signature() -> str:
    """The same signature bytes in another base64url spelling: surplus bits set."""
    token = ISSUER.mint()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + alphabet[alphabet.index(token[-1]) ^ 1]


def raw_signature(signature: bytes) -> str:
    content = ISSUER.mint().rpartition(".")[0]
    return f"{content}.{base64url(signature)}"


def der_signature() -> str:
    content = ISSUER.mint().rpartition(".")[0]
    return f"{content}.{base64url(ISSUER._private.sign(content.encode(), ec.ECDSA(ES256.hash_alg())))}"


def other_key_embedded() -> str:
    public = ECAlgorithm.to_jwk(OTHER._private.public_key(), as_dict=True)
    _, payload = parts()
    headers = {"typ": "at+jwt", "kid": ISSUER.key.kid, "jwk": public}
    return jwt.encode(payload, OTHER._private, algorithm="ES256", headers=headers)


RAW_HEADER = json.dumps({"typ": "at+jwt", "alg": "ES256", "kid": ISSUER.key.kid})


def with_raw_payload(payload: str | bytes) -> str:
    return signed(RAW_HEADER, payload)


HOSTILE: dict[str, dict[str, Callable[[], str]]] = {
    "Not an access token": {
        "empty": lambda: "",
        "one word": lambda: "x",
        "three empty segments": lambda: "..",
        "two segments": lambda: ISSUER.mint().rpartition(".")[0],
        "four segments": lambda: ISSUER.mint() + ".x",
        "encrypted: five segments": lambda: "e30.e30.e30.e30.e30",
        "trailing newline": lambda: ISSUER.mint() + "\n",
        "space inside": lambda: ISSUER.mint().replace(".", ". ", 1),
        "not ASCII": lambda: ISSUER.mint() + "é",
        "a lone surrogate": lambda: ISSUER.mint() + "\ud800",
        "base64 of the standard alphabet": lambda: with_raw_payload('{"s":"~~~"}').replace("-", "+").replace("_", "/"),
        "padded base64": lambda: ISSUER.mint() + "==",
        "over 4 KiB": lambda: ISSUER.mint(note="n" * 4000),
        "1.3 MB of garbage": lambda: "A" * 1_300_000,
        "signature respelled": respelled_signature,
        "typ JWT": lambda: with_header(typ="JWT"),
        "typ of an ID token": lambda: with_header(typ="id+jwt"),
        "typ in capitals": lambda: with_header(typ="AT+JWT"),
        "typ with a parameter": lambda: with_header(typ="at+jwt; x=1"),
        "typ missing": lambda: with_header(typ=None),
        "typ no string": lambda: with_header(typ=["at+jwt"]),
        "header no object": lambda: signed("[]", json.dumps(parts()[1])),
        "header with alg twice": lambda: signed(RAW_HEADER[:-1] + ', "alg": "ES256"}', json.dumps(parts()[1])),
        "payload no object": lambda: with_raw_payload('"sub"'),
        "payload no JSON": lambda: with_raw_payload("{"),
        "payload in UTF-16": lambda: with_raw_payload(json.dumps(parts()[1]).encode("utf-16")),
        "payload with a byte order mark": lambda: with_raw_payload(json.dumps(parts()[1]).encode("utf-8-sig")),
        "payload not UTF-8": lambda: with_raw_payload(b'{"sub": "\xff"}'),
        "payload nested too deep": lambda: with_raw_payload("[" * 2500),
        "a claim twice": lambda: with_raw_payload(json.dumps(parts()[1])[:-1] + ', "roles": ["admin"]}'),
        "a nested name twice": lambda: with_raw_claim("act", '{"sub": "a", "sub": "b"}'),
        "NaN": lambda: with_raw_claim("exp", "NaN"),
        "Infinity in an unused claim": lambda: with_raw_claim("note", "Infinity"),
    },
    "algorithm is not allowed": {
        "alg none, unsigned": lambda: with_header(alg="none").rpartition(".")[0] + ".",
        "alg none, signed": lambda: with_header(alg="none"),
        "alg none in capitals": lambda: with_header(alg="NONE"),
        "alg in lower case": lambda: with_header(alg="es256"),
        "alg missing": lambda: with_header(alg=None),
        "alg no string": lambda: with_header(alg=["ES256"]),
        "alg of another curve": lambda: with_header(alg="ES384"),
        "HMAC with the public key": hmac_with_public_key,
    },
    "header asks for what is not supported": {
        "crit": lambda: with_header(crit=["exp"]),
        "b64 false": lambda: with_header(b64=False),
        "jku": lambda: with_header(jku="https://evil.invalid/jwks.json"),
        "x5u": lambda: with_header(x5u="https://evil.invalid/cert"),
        "x5c": lambda: with_header(x5c=["MIIB"]),
        "the sender's own jwk": other_key_embedded,
    },
    "signature is wrong": {
        "alg RS256 on an EC key": rs256_under_ec_kid,
        "signed by another key under our kid": lambda: OTHER.mint(headers={"kid": ISSUER.key.kid}),
        "payload swapped": tampered,
        "signature missing": lambda: ISSUER.mint().rpartition(".")[0] + ".",
        "signature cut": lambda: raw_signature(b"\x01" * 63),
        "signature of zeros (CVE-2022-21449)": lambda: raw_signature(bytes(64)),
        "signature in DER": der_signature,
    },
    "key is not known": {
        "unknown kid": lambda: OTHER.mint(scope="orders:read"),
        "kid with a path": lambda: with_header(kid="../../dev/null"),
    },
    "identifier is malformed": {
        "no kid": lambda: with_header(kid=None),
        "kid no string": lambda: with_header(kid=1),
        "kid of 300 characters": lambda: with_header(kid="k" * 300),
        "kid with NUL": lambda: with_header(kid=ISSUER.key.kid + "\x00"),
        "sub empty": lambda: ISSUER.mint(sub=""),
        "sub a number": lambda: with_raw_claim("sub", "1"),
        "sub with NUL": lambda: ISSUER.mint(sub="a\x00b"),
        "sub with a lone surrogate": lambda: with_raw_claim("sub", '"\\ud800"'),
        "jti null": lambda: with_raw_claim("jti", "null"),
        "client_id an object": lambda: with_raw_claim("client_id", '{"id": "web"}'),
        "sid null": lambda: with_raw_claim("sid", "null"),
    },
    "claim is missing": {
        "no iss": lambda: ISSUER.mint(iss=None),
        "no sub": lambda: ISSUER.mint(sub=None),
        "no aud": lambda: ISSUER.mint(aud=None),
        "no exp": lambda: ISSUER.mint(exp=None),
        "no iat": lambda: ISSUER.mint(iat=None),
        "no jti": lambda: ISSUER.mint(jti=None),
        "no client_id": lambda: ISSUER.mint(client_id=None),
        "no scope": lambda: ISSUER.mint(scope=None),
    },
    "must be an integer": {
        "exp a string": lambda: with_raw_claim("exp", f'"{int(time.time()) + 60}"'),
        "exp 1e300": lambda: with_raw_claim("exp", "1e300"),
        "exp a fraction": lambda: with_raw_claim("exp", f"{int(time.time()) + 60}.5"),
        "exp true": lambda: with_raw_claim("exp", "true"),
        "exp null": lambda: with_raw_claim("exp", "null"),
        "exp of 1000 digits": lambda: with_raw_claim("exp", "9" * 1000),
        "exp negative": lambda: with_raw_claim("exp", "-1"),
        "exp a float without a fraction": lambda: with_raw_claim("exp", f"{int(time.time()) + 60}.0"),
        "iat negative": lambda: with_raw_claim("iat", "-1"),
        "nbf a string": lambda: ISSUER.mint(nbf="0"),
        "sv a string": lambda: with_raw_claim("sv", '"9"'),
        "auth_time a fraction": lambda: with_raw_claim("auth_time", "1.5"),
    },
    "has expired": {"expired": lambda: dated(-311, -11)},
    "is not valid yet": {
        "iat in the future": lambda: dated(60, 120),
        "nbf in the future": lambda: ISSUER.mint(nbf=int(time.time()) + 60),
    },
    "lives too long": {
        "a second over the maximum": lambda: ISSUER.mint(lifetime=301),
        "until the year 3000": lambda: ISSUER.mint(exp=32503680000),
        "exp before iat": lambda: dated(5, 4),
    },
    "from another issuer": {
        "another issuer": lambda: ISSUER.mint(iss="https://evil.invalid"),
        "our issuer and a slash": lambda: ISSUER.mint(iss=ISSUER.issuer + "/"),
        "our issuer in a list": lambda: with_raw_claim("iss", json.dumps([ISSUER.issuer])),
    },
    "not for this service": {
        "another audience": lambda: ISSUER.mint(audience=("users",)),
        "our audience as a prefix": lambda: ISSUER.mint(aud=["https://waybill.invalid/orders/x"]),
        "audiences in one string": lambda: ISSUER.mint(aud="https://waybill.invalid/orders https://x.invalid"),
        "no audience at all": lambda: ISSUER.mint(aud=[]),
    },
    "list of strings": {
        "audience an object": lambda: ISSUER.mint(aud={"https://waybill.invalid/orders": True}),
        "audience with a number": lambda: ISSUER.mint(aud=["https://waybill.invalid/orders", 1]),
        "audience null": lambda: with_raw_claim("aud", "null"),
        "roles a string": lambda: with_raw_claim("roles", '"admin"'),
        "roles with an object": lambda: with_raw_claim("roles", '[{"admin": true}]'),
    },
    "scope claim is malformed": {
        "scope a list": lambda: with_raw_claim("scope", '["orders:read"]'),
        "scope with a line break": lambda: ISSUER.mint(scope="orders:read\nadmin"),
        "scope with two spaces": lambda: ISSUER.mint(scope="orders:read  orders:write"),
    },
}


@pytest.mark.parametrize(
    ("reason", "token"),
    [
        pytest.param(reason, make, id=f"{name}: {reason}")
        for reason, attacks in HOSTILE.items()
        for name, make in attacks.items()
    ],
)
async def test_a_hostile_token_is_refused(reason: str, token: Callable[[], str]) -> None:
    with pytest.raises(InvalidToken, match=reason) as refusal:
        await ISSUER.verifier("orders").verify(token())
    assert refusal.value.status == 401
    assert refusal.value.headers == {"WWW-Authenticate": 'Bearer error="invalid_token"'}
