"""POST /token: what is granted, and which error each invalid request gets (RFC 6749 §5)."""

from collections.abc import AsyncIterator
from functools import partial

import httpx
import jwt
import pytest
from pydantic import SecretStr

from auth.settings import Settings
from common.security.tokens import InvalidToken
from common.settings import resource

from .conftest import PASSWORD, Auth, Users, serving

CLAIMS = {"iss", "sub", "aud", "exp", "iat", "jti", "client_id", "scope", "sid", "sv", "auth_time", "roles"}


async def test_a_person_signs_in_with_a_password(auth: Auth) -> None:
    ada = auth.users.add("ada@example.com", role="staff", version=3)
    answer = await auth.token(grant_type="password", username="ada@example.com", password=PASSWORD)
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    tokens = answer.json()
    assert tokens.keys() == {"access_token", "token_type", "expires_in", "refresh_token", "scope"}
    assert (tokens["token_type"], tokens["expires_in"]) == ("bearer", 300)
    assert tokens["scope"] == "account orders:read orders:write notifications:read notifications:write"
    for service in ("auth", "users", "orders", "notifier"):
        principal = await auth.principal(tokens["access_token"], service)
        assert principal.user_id == ada.user_id
        assert principal.roles == {"staff"}


async def test_an_access_token_has_the_documented_claims_and_no_personal_data(auth: Auth) -> None:
    ada = auth.users.add("ada@example.com")
    token = (await auth.sign_in(ada))["access_token"]
    header = jwt.get_unverified_header(token)
    claims = jwt.decode(token, options={"verify_signature": False})
    keys = (await auth.http.get("/.well-known/jwks.json")).json()["keys"]
    assert header == {"typ": "at+jwt", "alg": "ES256", "kid": keys[0]["kid"]}
    assert claims.keys() == CLAIMS
    assert claims["iss"] == "http://gateway.test"
    assert claims["sub"] == str(ada.user_id)
    assert claims["aud"] == [resource(service) for service in ("auth", "users", "orders", "notifier")]
    assert claims["exp"] - claims["iat"] == 300
    assert (claims["client_id"], claims["roles"]) == ("web", ["user"])


async def test_scope_and_resource_narrow_the_token(auth: Auth) -> None:
    ada = auth.users.add("ada@example.com")
    tokens = await auth.sign_in(ada, scope="orders:read", resource=resource("orders"))
    assert tokens["scope"] == "orders:read"
    assert (await auth.principal(tokens["access_token"], "orders")).scopes == {"orders:read"}
    with pytest.raises(InvalidToken):
        await auth.principal(tokens["access_token"], "users")


async def test_an_outside_service_is_in_the_audience_only_on_request(settings: Settings, users: Users) -> None:
    stock = "https://stock.example"
    ada = users.add("ada@example.com")
    async with serving(settings.model_copy(update={"other_resources": (stock,)}), users) as auth:
        default = await auth.sign_in(ada)
        requested = await auth.sign_in(ada, resource=stock)
        (default_audience, requested_audience) = (
            jwt.decode(tokens["access_token"], options={"verify_signature": False})["aud"]
            for tokens in (default, requested)
        )
        assert stock not in default_audience
        assert requested_audience == [stock]
        again = await auth.refresh(requested["refresh_token"], resource=resource("orders"))
        assert again.json()["error"] == "invalid_target"


async def test_the_login_form_of_swagger_ui_works(auth: Auth) -> None:
    """Swagger's Authorize button sends empty client fields as Basic credentials `:`."""
    ada = auth.users.add("ada@example.com")
    form = {"grant_type": "password", "username": ada.email, "password": PASSWORD}
    for headers in ({"Authorization": "Basic Og=="}, {"Authorization": "Basic d2ViOg=="}, {}):
        assert (await auth.http.post("/token", data=form, headers=headers)).status_code == 200
    empty = {"client_id": "", "client_secret": "", "scope": ""}
    assert (await auth.http.post("/token", data=form | empty)).status_code == 200


async def test_auth_calls_users_with_its_own_token_and_the_clients_network(auth: Auth) -> None:
    ada = auth.users.add("ada@example.com")
    form = {"grant_type": "password", "username": ada.email, "password": PASSWORD}
    await auth.http.post("/token", data=form, headers={"X-Forwarded-For": "203.0.113.9, 198.51.100.7"})
    await auth.http.post("/token", data=form)
    (first, token), (second, _) = auth.users.requests
    assert first == {"email": ada.email, "password": PASSWORD, "network": "198.51.100.7"}
    assert second["network"] == "192.0.2.1"
    principal = await auth.principal(token, "users")
    assert (principal.client_id, principal.scopes) == ("auth", frozenset({"credentials:verify", "profiles:read"}))


async def test_wrong_credentials_are_an_invalid_grant(auth: Auth, subtests: pytest.Subtests) -> None:
    auth.users.add("ada@example.com")
    wrong = [("ada@example.com", "wrong"), ("unknown@example.com", PASSWORD), ("a" * 400, PASSWORD), ("x", "p" * 2000)]
    for username, password in wrong:
        with subtests.test(f"{username[:20]} {password[:20]}"):
            answer = await auth.token(grant_type="password", username=username, password=password)
            assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
            assert answer.headers["Cache-Control"] == "no-store"


async def test_a_second_factor_is_asked_for_after_a_right_password_only(auth: Auth, subtests: pytest.Subtests) -> None:
    auth.users.add("ada@example.com", code="123456")
    auth.users.add("bob@example.com")
    for username, password, otp, error in (
        ("ada@example.com", PASSWORD, "", "mfa_required"),
        ("ada@example.com", "not the password", "", "invalid_grant"),
        ("ada@example.com", "not the password", "123456", "invalid_grant"),
        ("ada@example.com", PASSWORD, "654321", "invalid_grant"),
        ("ada@example.com", PASSWORD, "1" * 65, "invalid_grant"),
        ("ada@example.com", PASSWORD, "123456", None),
        ("bob@example.com", PASSWORD, "", None),
        ("bob@example.com", PASSWORD, "123456", None),
    ):
        with subtests.test(f"{username} {password} {otp}"):
            answer = await auth.token(grant_type="password", username=username, password=password, otp=otp)
            assert answer.json().get("error") == error
            assert answer.status_code == (200 if error is None else 400)
    assert "otp" not in auth.users.requests[0][0]  # an older release of users refuses unknown fields


async def test_throttling_by_users_is_forwarded(auth: Auth) -> None:
    auth.users.override = lambda: httpx.Response(429, headers={"Retry-After": "7"})
    answer = await auth.token(grant_type="password", username="ada@example.com", password=PASSWORD)
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "7")


async def test_an_error_of_users_is_a_503(auth: Auth, subtests: pytest.Subtests) -> None:
    for status in (500, 503, 403, 404):
        with subtests.test(str(status)):
            auth.users.override = partial(httpx.Response, status, headers={"Retry-After": "3"})
            answer = await auth.token(grant_type="password", username="ada@example.com", password=PASSWORD)
            assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")
            assert answer.headers["Retry-After"]


async def test_a_service_token_that_users_refuses_is_a_503_not_a_wrong_password(auth: Auth) -> None:
    ada = auth.users.add("ada@example.com")
    refusal = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
    auth.users.override = lambda: httpx.Response(401, headers=refusal)
    answer = await auth.token(grant_type="password", username=ada.email, password=PASSWORD)
    assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")
    assert len(auth.users.requests) == 2


async def test_without_users_only_the_password_grant_fails(auth: Auth) -> None:
    ada = auth.users.add("ada@example.com")
    tokens = await auth.sign_in(ada)

    def unreachable() -> httpx.Response:
        raise httpx.ConnectError("unreachable")

    auth.users.override = unreachable
    assert (await auth.token(grant_type="password", username=ada.email, password=PASSWORD)).status_code == 503
    assert (await auth.refresh(tokens["refresh_token"])).status_code == 200


BASIC = {"Authorization": httpx.BasicAuth("orders", "orders-secret")._auth_header}
FORM = "application/x-www-form-urlencoded"


PERSON = "grant_type=password&username=a&password=b"
SERVICE = "grant_type=client_credentials"
AS_JSON = {"Content-Type": "application/json"}

WRONG: dict[tuple[int, str], dict[str, tuple[str, dict[str, str]]]] = {
    (400, "invalid_request"): {
        "nothing": ("", {}),
        "empty grant type": ("grant_type=", {}),
        "no password": ("grant_type=password&username=a", {}),
        "no refresh token": ("grant_type=refresh_token", {}),
        "repeated": (f"{PERSON}&username=b", {}),
        "repeated grant type": (f"{PERSON}&grant_type=password", {}),
        "NUL": ("grant_type=password&username=%00&password=c", {}),
        "not UTF-8": ("grant_type=password&username=%ff&password=c", {}),
        "a surrogate": ("grant_type=password&username=%ed%a0%80&password=c", {}),
        "too many fields": ("&".join(f"f{number}=1" for number in range(40)), {}),
        "JSON": ('{"grant_type": "password"}', AS_JSON),
        "secret without id": (f"{SERVICE}&client_secret=x", {}),
        "two authentications": (f"{SERVICE}&client_id=orders&client_secret=orders-secret", BASIC),
        "two client ids": (f"{SERVICE}&client_id=users", BASIC),
    },
    (400, "unsupported_grant_type"): {
        "implicit": ("grant_type=implicit", {}),
        "in capitals": ("grant_type=PASSWORD&username=a&password=b", {}),
    },
    (400, "unauthorized_client"): {
        "a public client for itself": (f"{SERVICE}&client_id=web", {}),
        "a service with a password": (PERSON, BASIC),
    },
    (400, "invalid_scope"): {
        "unknown": (f"{PERSON}&scope=admin", {}),
        "two spaces": (f"{PERSON}&scope=account%20%20orders:read", {}),
        "internal": (f"{PERSON}&scope=revocations:read", {}),
        "another service's": (f"{SERVICE}&scope=links:issue", BASIC),
    },
    (400, "invalid_target"): {"not ours": (f"{PERSON}&resource=https://x.invalid", {})},
    (400, "invalid_grant"): {"never a token of ours": ("grant_type=refresh_token&refresh_token=x", {})},
    (401, "invalid_client"): {
        "none": (SERVICE, {}),
        "unknown": (f"{SERVICE}&client_id=nobody&client_secret=x", {}),
        "wrong secret": (f"{SERVICE}&client_id=orders&client_secret=x", {}),
        "no secret": (f"{SERVICE}&client_id=orders", {}),
        "a public client's secret": (f"{SERVICE}&client_id=web&client_secret=x", {}),
        "a bearer token": (SERVICE, {"Authorization": "Bearer x"}),
        "no base64": (SERVICE, {"Authorization": "Basic !"}),
        "no colon": (SERVICE, {"Authorization": "Basic eA=="}),
    },
}


async def test_an_invalid_request_gets_the_error_of_rfc_6749(auth: Auth, subtests: pytest.Subtests) -> None:
    for (status, error), requests in WRONG.items():
        for name, (content, headers) in requests.items():
            with subtests.test(f"{error}: {name}"):
                answer = await auth.http.post("/token", content=content, headers={"Content-Type": FORM} | headers)
                assert (answer.status_code, answer.json()["error"]) == (status, error)
                assert answer.json().keys() == {"error", "error_description"}
                assert (answer.headers["Cache-Control"], answer.headers["Pragma"]) == ("no-store", "no-cache")
                assert answer.headers.get("WWW-Authenticate", "").startswith("Basic ") == (status == 401)
    assert not auth.users.requests


async def test_a_body_over_64_kib_gets_an_oauth_error(auth: Auth, subtests: pytest.Subtests) -> None:
    async def in_chunks() -> AsyncIterator[bytes]:
        for _ in range(17):
            yield b"a" * 65_536

    for path in ("/token", "/revoke", "/introspect"):
        for name, content in (
            ("declared", b"a" * (2**16 + 1)),
            ("in chunks", in_chunks()),
            ("%41", b"a=" + b"%41" * 330_000),
        ):
            with subtests.test(f"{path}: {name}"):
                answer = await auth.http.post(path, content=content, headers={"Content-Type": FORM})
                assert (answer.status_code, answer.json()["error"]) == (413, "invalid_request")
                assert (answer.headers["Content-Type"], answer.headers["Cache-Control"]) == (
                    "application/json",
                    "no-store",
                )


@pytest.mark.parametrize("path", ["/token", "/revoke", "/introspect"])
async def test_an_encoded_form_and_two_content_types_get_an_oauth_error(auth: Auth, path: str) -> None:
    encoded = {"Content-Type": FORM, "Content-Encoding": "gzip"}
    answer = await auth.http.post(path, content=b"token=a", headers=encoded)
    assert (answer.status_code, answer.json()["error"]) == (415, "invalid_request")
    answer = await auth.http.post(path, content=b"token=a", headers=[("Content-Type", FORM)] * 2)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


async def test_two_authorization_headers_are_an_invalid_request(auth: Auth) -> None:
    headers = [("Authorization", BASIC["Authorization"])] * 2
    answer = await auth.http.post("/token", data={"grant_type": "client_credentials"}, headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


async def test_the_token_endpoint_allows_only_post(auth: Auth) -> None:
    for method in ("GET", "PUT", "DELETE"):
        assert (await auth.http.request(method, "/token")).status_code == 405


async def test_an_unavailable_database_is_an_oauth_error(settings: Settings, users: Users) -> None:
    unavailable = settings.model_copy(update={"database_url": SecretStr("postgresql://nobody@127.0.0.1:1/auth")})
    ada = users.add("ada@example.com")
    async with serving(unavailable, users, ready=False) as auth:
        answers = (
            await auth.token(grant_type="password", username=ada.email, password=PASSWORD),
            await auth.refresh("wbr_" + "A" * 70),
            await auth.http.post("/revoke", data={"token": "wbr_" + "A" * 70}),
            await auth.http.post("/introspect", data={"token": "x", "client_id": "nobody", "client_secret": "x"}),
        )
        for answer in answers:
            assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")
            assert answer.headers["Retry-After"]
        assert (await auth.http.get("/.well-known/jwks.json")).status_code == 503
