"""The issuer's keys, as another service's verifier fetches and caches them."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from common.errors import Unavailable
from common.security import jwks
from common.security.jwks import JwksClient
from common.security.verification_keys import UnusableKey, VerificationKey, parse_jwk, thumbprint
from common.testing.plugin import eventually
from common.testing.token_issuer import TokenIssuer

FIRST, SECOND = TokenIssuer(), TokenIssuer()


class Publisher:
    """Answers with its keys while `answering` is set, counts the requests, and can be made to fail."""

    def __init__(self, *issuers: TokenIssuer, settle: float = 0.05) -> None:
        self.issuers = issuers
        self.requests = 0
        self.now = 0.0
        self.answer: Callable[[], httpx.Response] = self.keys
        self.answering = asyncio.Event()
        self.answering.set()
        http = httpx.AsyncClient(transport=httpx.MockTransport(self._handle))
        self.client = JwksClient(http, "http://auth.test/jwks.json", settle=settle, clock=lambda: self.now)

    def keys(self) -> httpx.Response:
        keys = [dict(issuer.key.jwk) for issuer in self.issuers]
        return httpx.Response(200, json={"keys": keys}, headers={"Cache-Control": "public, max-age=300"})

    async def _handle(self, _request: httpx.Request) -> httpx.Response:
        self.requests += 1
        await self.answering.wait()
        return self.answer()


def unavailable() -> httpx.Response:
    raise httpx.ConnectError("unavailable")


async def found(publisher: Publisher, issuer: TokenIssuer) -> VerificationKey | None:
    return await publisher.client.find(issuer.key.kid)


async def found_at_once(publisher: Publisher, issuer: TokenIssuer, *, times: int) -> list[VerificationKey | None]:
    """The results of calls that all begin before the first answer."""
    before = publisher.requests
    publisher.answering.clear()
    calls = [asyncio.create_task(found(publisher, issuer)) for _ in range(times)]
    await eventually(lambda: _requested(publisher, before + 1))
    publisher.answering.set()
    return await asyncio.gather(*calls)


async def test_many_requests_at_the_start_cause_one_fetch() -> None:
    publisher = Publisher(FIRST)
    keys = await found_at_once(publisher, FIRST, times=50)
    assert all(key is not None and key.kid == FIRST.key.kid for key in keys)
    assert publisher.requests == 1


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(unavailable, id="unavailable"),
        pytest.param(lambda: httpx.Response(500), id="failing"),
        pytest.param(lambda: httpx.Response(302, headers={"Location": "http://evil.test"}), id="redirecting"),
        pytest.param(lambda: httpx.Response(200, text="<html>"), id="not JSON"),
        pytest.param(lambda: httpx.Response(200, json=[1]), id="no object"),
        pytest.param(lambda: httpx.Response(200, json={"keys": []}), id="without keys"),
        pytest.param(lambda: httpx.Response(200, text='{"keys": "' + "x" * 70_000 + '"}'), id="too large"),
    ],
)
async def test_no_keys_at_all_is_an_outage(answer: Callable[[], httpx.Response]) -> None:
    publisher = Publisher(FIRST)
    publisher.answer = answer
    with pytest.raises(Unavailable):
        await found(publisher, FIRST)


async def test_the_last_good_set_survives_a_failing_issuer() -> None:
    publisher = Publisher(FIRST)
    await found(publisher, FIRST)
    publisher.answer = unavailable
    with pytest.raises(Unavailable):
        await publisher.client.refresh()
    assert await found(publisher, FIRST) is publisher.client.cached(FIRST.key.kid) is not None


async def test_an_unknown_key_is_fetched_at_most_once_in_30_seconds() -> None:
    publisher = Publisher(FIRST)
    await found(publisher, FIRST)
    for number in range(100):
        assert await publisher.client.find(f"unknown-{number}") is None
    assert publisher.requests == 2
    publisher.now += 30
    assert await publisher.client.find("unknown-100") is None
    assert publisher.requests == 3


async def test_a_kid_known_to_be_missing_does_not_delay_the_fetch_of_a_new_key() -> None:
    publisher = Publisher(FIRST)
    await found(publisher, FIRST)
    await publisher.client.find("gone")
    publisher.now += 31
    publisher.issuers = (FIRST, SECOND)
    assert await publisher.client.find("gone") is None
    assert await found(publisher, SECOND) is not None


async def test_requests_with_a_new_key_wait_for_the_fetch_under_way() -> None:
    publisher = Publisher(FIRST)
    await found(publisher, FIRST)
    publisher.issuers = (FIRST, SECOND)
    keys = await found_at_once(publisher, SECOND, times=20)
    assert None not in keys
    assert publisher.requests == 2


async def test_the_missing_kids_stay_bounded() -> None:
    publisher = Publisher(FIRST)
    await found(publisher, FIRST)
    for number in range(1_100):
        publisher.now += 30
        await publisher.client.find(f"unknown-{number}")
    assert len(publisher.client._missing) == 1_000


async def test_a_refresh_keeps_known_keys_the_same_objects_and_drops_withdrawn_ones() -> None:
    publisher = Publisher(FIRST, SECOND)
    first = await found(publisher, FIRST)
    publisher.issuers = (FIRST,)
    await publisher.client.refresh()
    assert publisher.client.cached(FIRST.key.kid) is first
    assert publisher.client.cached(SECOND.key.kid) is None


async def test_without_run_a_withdrawn_key_is_dropped_after_max_age() -> None:
    publisher = Publisher(FIRST)
    await found(publisher, FIRST)
    publisher.issuers = (SECOND,)
    publisher.now += 299
    assert await found(publisher, FIRST) is not None
    assert publisher.requests == 1
    publisher.now += 1

    async def is_gone() -> bool:
        return publisher.client.cached(FIRST.key.kid) is None

    await eventually(is_gone)
    assert publisher.requests == 2


async def test_after_a_change_the_keys_are_fetched_until_every_replica_must_know_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jwks, "_WHILE_SETTLING", 0.01)
    publisher = Publisher(FIRST, settle=3600)

    async def knows_another() -> bool:
        return publisher.client.cached(SECOND.key.kid) is not None

    def late() -> httpx.Response:
        if publisher.requests == 5:
            publisher.issuers = (FIRST, SECOND)
        return publisher.keys()

    publisher.answer = late
    running = asyncio.create_task(publisher.client.run())
    try:
        await eventually(lambda: _requested(publisher, 1))
        publisher.client.keys_changed()
        await eventually(knows_another)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def _requested(publisher: Publisher, times: int) -> bool:
    return publisher.requests >= times


async def test_after_a_change_an_answer_with_the_old_keys_is_followed_by_another_fetch() -> None:
    publisher = Publisher(FIRST)

    async def holds(issuer: TokenIssuer) -> bool:
        return publisher.client.cached(issuer.key.kid) is not None

    def late() -> httpx.Response:
        answer = publisher.keys()
        if publisher.requests == 2:
            publisher.client.keys_changed()  # the second event comes while the fetch for the first is under way
        else:
            publisher.issuers = (SECOND,)
        return answer

    running = asyncio.create_task(publisher.client.run())
    try:
        await eventually(lambda: holds(FIRST))
        publisher.answer = late
        publisher.client.keys_changed()
        await eventually(lambda: holds(SECOND))
        assert not await holds(FIRST)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def ec_jwk(curve: ec.EllipticCurve | None = None) -> dict[str, Any]:
    return dict(ECAlgorithm.to_jwk(ec.generate_private_key(curve or ec.SECP256R1()).public_key(), as_dict=True))


def rsa_jwk(bits: int) -> dict[str, Any]:
    public = rsa.generate_private_key(public_exponent=65537, key_size=bits).public_key()
    return dict(RSAAlgorithm.to_jwk(public, as_dict=True))


PRIVATE = dict(ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()), as_dict=True))


@pytest.mark.parametrize(
    "jwk",
    [
        pytest.param({**ec_jwk(), "kid": 1}, id="kid no string"),
        pytest.param(ec_jwk(), id="no kid"),
        pytest.param({**ec_jwk(), "kid": "k", "use": "enc"}, id="for encryption"),
        pytest.param({**ec_jwk(), "kid": "k", "key_ops": ["sign"]}, id="for signing"),
        pytest.param({**ec_jwk(), "kid": "k", "alg": "ES384"}, id="another algorithm"),
        pytest.param({**ec_jwk(ec.SECP384R1()), "kid": "k"}, id="another curve"),
        pytest.param({**ec_jwk(), "kid": "k", "x": "AAAA"}, id="off the curve"),
        pytest.param({**ec_jwk(), "kid": "k", "y": 1}, id="malformed"),
        pytest.param({**PRIVATE, "kid": "k"}, id="private"),
        pytest.param({"kty": "oct", "k": "c2VjcmV0", "kid": "k"}, id="symmetric"),
        pytest.param({**rsa_jwk(1024), "kid": "k"}, id="RSA too short"),
        pytest.param({"kty": "OKP", "crv": "Ed25519", "x": "AAAA", "kid": "k"}, id="not allowed here"),
    ],
)
def test_an_unusable_key_is_refused(jwk: dict[str, Any]) -> None:
    with pytest.raises(UnusableKey):
        parse_jwk(jwk)


def test_a_thumbprint_is_that_of_rfc_7638() -> None:
    """The example of RFC 7638 §3.1."""
    jwk = {
        "kty": "RSA",
        "n": (
            "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4"
            "n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0"
            "zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-c"
            "sFCur-kEgU8awapJzKnqDKgw"
        ),
        "e": "AQAB",
        "alg": "RS256",
        "kid": "2011-04-29",
    }
    assert thumbprint(jwk) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
    assert parse_jwk(jwk).alg == "RS256"
