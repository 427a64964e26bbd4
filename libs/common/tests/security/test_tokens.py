"""The principal of a verified token, and what is checked again for a cached one."""

import time
from collections.abc import Callable

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from common.errors import Forbidden
from common.security.tokens import InvalidToken, Principal, TokenVerifier
from common.security.verification_keys import StaticKeys, parse_jwk, thumbprint
from common.testing.token_issuer import TokenIssuer

ISSUER = TokenIssuer()


def dated(issued_at: int, expires_at: int) -> str:
    """A token with both dates in seconds from now."""
    now = int(time.time())
    return ISSUER.mint(iat=now + issued_at, exp=now + expires_at)


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(ISSUER.mint, id="ES256"),
        pytest.param(lambda: ISSUER.mint(headers={"typ": "application/at+jwt"}), id="long typ"),
        pytest.param(lambda: ISSUER.mint(aud="https://waybill.invalid/orders"), id="aud as one string"),
        pytest.param(lambda: ISSUER.mint(scope=""), id="no scopes"),
        pytest.param(lambda: ISSUER.mint(unknown={"claim": [1.5, None]}), id="unknown claim"),
        pytest.param(lambda: dated(5, 305), id="clock ahead, within the leeway"),
        pytest.param(lambda: dated(-300, -1), id="just expired, within the leeway"),
        pytest.param(lambda: ISSUER.mint(roles=(), sid=None, sv=None, auth_time=None), id="only what is required"),
    ],
)
async def test_a_valid_token_is_accepted(token: Callable[[], str]) -> None:
    assert isinstance(await ISSUER.verifier("orders").verify(token()), Principal)


async def test_rs256_is_accepted_from_an_rsa_key() -> None:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    jwk = RSAAlgorithm.to_jwk(private.public_key(), as_dict=True)
    key = parse_jwk({**jwk, "kid": thumbprint(jwk), "alg": "RS256"})
    claims = jwt.decode(ISSUER.mint(), options={"verify_signature": False})
    token = jwt.encode(claims, private, algorithm="RS256", headers={"typ": "at+jwt", "kid": key.kid})
    verifier = TokenVerifier(issuer=ISSUER.issuer, audience="https://waybill.invalid/orders", keys=StaticKeys([key]))
    assert (await verifier.verify(token)).subject == claims["sub"]


async def test_the_principal_has_the_tokens_subject_client_roles_and_scopes() -> None:
    token = ISSUER.mint("018f3b1e-0000-7000-8000-000000000001", roles=("staff",), scope="orders:read", sid="s", sv=3)
    principal = await ISSUER.verifier("orders").verify(token)
    assert str(principal.user_id) == principal.subject == "018f3b1e-0000-7000-8000-000000000001"
    assert principal.client_id == "web"
    assert (principal.roles, principal.scopes) == (frozenset({"staff"}), frozenset({"orders:read"}))
    assert (principal.session_id, principal.session_version) == ("s", 3)
    assert principal.expires_at - principal.issued_at == 300


async def test_a_client_is_no_person() -> None:
    principal = await ISSUER.verifier("orders").verify(ISSUER.mint_service("users", scope="credentials:verify"))
    assert principal.is_client
    with pytest.raises(Forbidden) as refusal:
        _ = principal.user_id
    assert refusal.value.headers == {"WWW-Authenticate": 'Bearer error="insufficient_scope"'}


class Denied:
    def __init__(self) -> None:
        self.sessions: set[str | None] = set()

    def denies(self, principal: Principal) -> bool:
        return principal.session_id in self.sessions


async def test_revocation_reaches_a_token_that_was_verified_before() -> None:
    denylist = Denied()
    verify = ISSUER.verifier("orders", denylist=denylist).verify
    token = ISSUER.mint(sid="s")
    await verify(token)
    denylist.sessions.add("s")
    for _ in range(2):
        with pytest.raises(InvalidToken, match="revoked"):
            await verify(token)


async def test_expiry_reaches_a_token_that_was_verified_before() -> None:
    now = time.time()
    verify = ISSUER.verifier("orders", clock=lambda: now).verify
    token = ISSUER.mint(iat=int(now), exp=int(now) + 60)
    await verify(token)
    now = int(now) + 69
    await verify(token)
    now += 1
    with pytest.raises(InvalidToken, match="expired"):
        await verify(token)


async def test_tokens_of_a_withdrawn_key_are_refused_though_verified_before() -> None:
    keys = StaticKeys([ISSUER.key])
    checked = TokenVerifier(issuer=ISSUER.issuer, audience="https://waybill.invalid/orders", keys=keys)
    token = ISSUER.mint()
    await checked.verify(token)
    keys._keys.clear()
    with pytest.raises(InvalidToken, match="key"):
        await checked.verify(token)


async def test_the_cache_of_verified_tokens_stays_bounded() -> None:
    checked = ISSUER.verifier("orders", remembered=3)
    first = ISSUER.mint()
    for token in (first, *(ISSUER.mint() for _ in range(5)), first):
        await checked.verify(token)
    assert len(checked._verified) == 3


async def test_a_refused_token_is_not_cached() -> None:
    checked = ISSUER.verifier("orders")
    with pytest.raises(InvalidToken):
        await checked.verify(TokenIssuer().mint())
    assert not checked._verified
