"""Hostile variants of redirect URIs, parameters, codes, cookies and forms: each is answered right."""

from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from auth.settings import Settings

from .browsing import CALLBACK, Browser, Forms, exchange, request_of, sent
from .conftest import PASSWORD, Auth, Person, Users
from .test_clients import REPORTS, Register, admin, register

__all__ = ["admin", "register"]

LOOPBACK = "http://127.0.0.1/signed-in"
LOOPBACK6 = "http://[::1]:9999/signed-in?kept=1"
APP = "com.example.app:/signed-in"

REFUSED_AT_REGISTRATION = (
    *("http://shop.example/cb", "http://localhost/cb", "http://127.0.0.2/cb", "http://127.0.0.1.evil.example/cb"),
    *("http://127.0.0.1@evil.example/cb", "http://[::2]/cb", "http://0.0.0.0/cb", "http://127.1/cb"),
    *("https://shop.example/cb#fragment", "https://user@shop.example/cb", "https:///cb", "https://shop.example:0/cb"),
    *("https://shop.example:99999/cb", "https://shop example/cb", "https://shop.example/\\evil", "//shop.example/cb"),
    *("/cb", "", "javascript:alert(1)", "data:text/html,x", "file:///etc/passwd", "https://shop.example/\ncb"),
    *("https://höst.example/cb", "https://a;b/cb", "https://*.shop.example/cb", "https://shop.example/" + "x" * 2000),
)
UNKNOWN_URIS = (
    *(f"{CALLBACK}/", f"{CALLBACK}?x=1", f"{CALLBACK}#x", CALLBACK.upper(), f"{CALLBACK}%2F..", f" {CALLBACK}"),
    *("https://shop.example:443/signed-in", "http://shop.example/signed-in", "https://shop.example.evil.example/"),
    *("https://shop.example@evil.example/signed-in", "https://evil.example/https://shop.example/signed-in"),
    *("https://shop.example/x/../signed-in", "//shop.example/signed-in", "javascript:alert(1)"),
    *("http://127.0.0.1:80@evil.example/signed-in", "http://127.0.0.1:65536/signed-in", "http://127.0.0.1:/signed-in"),
    *("http://127.0.0.1:8080/other", "http://localhost:8080/signed-in", "http://127.0.0.1:1:2/signed-in"),
    *(
        "http://[::1]:9999/signed-in",
        "http://[::1]:1234/signed-in?kept=2",
        "com.example.app:/other",
        "com.example.app:",
    ),
    *("https://127.0.0.1/signed-in", "http://127.0.0.1:8080/signed-in\n"),
)
BACK_TO_THE_CLIENT: tuple[tuple[dict[str, str | None], str], ...] = (
    ({"code_challenge": None}, "invalid_request"),
    ({"code_challenge": "short"}, "invalid_request"),
    ({"code_challenge": "=" * 43}, "invalid_request"),
    ({"code_challenge": "a" * 44}, "invalid_request"),
    ({"code_challenge_method": None}, "invalid_request"),
    ({"code_challenge_method": "plain"}, "invalid_request"),
    ({"code_challenge_method": "s256"}, "invalid_request"),
    ({"response_type": None}, "invalid_request"),
    ({"response_type": "token"}, "unsupported_response_type"),
    ({"response_type": "code token"}, "unsupported_response_type"),
    ({"scope": "openid admin"}, "invalid_scope"),
    ({"scope": "account"}, "invalid_scope"),
    ({"scope": "tokens:introspect"}, "invalid_scope"),
    ({"scope": "revocations:read"}, "invalid_scope"),
    ({"scope": "openid  email"}, "invalid_scope"),
    ({"scope": "openid\temail"}, "invalid_scope"),
    ({"resource": "https://evil.example"}, "invalid_target"),
    ({"prompt": "none login"}, "invalid_request"),
    ({"prompt": "create"}, "invalid_request"),
    ({"max_age": "-1"}, "invalid_request"),
    ({"max_age": "1e3"}, "invalid_request"),
    ({"max_age": "٣"}, "invalid_request"),
    ({"max_age": "9999999999"}, "invalid_request"),
    ({"nonce": "n" * 1025}, "invalid_request"),
    ({"nonce": "a\x00b"}, "invalid_request"),
    ({"prompt": "none"}, "login_required"),
    ({"prompt": "none", "id_token_hint": "x.y.z"}, "login_required"),
)
REPEATED = ("response_type", "scope", "state", "nonce", "code_challenge", "code_challenge_method", "prompt", "unknown")


@pytest.fixture
async def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"web_redirect_uris": (CALLBACK,)})


@pytest.fixture
def ada(users: Users) -> Person:
    return users.add("ada@example.com")


async def test_unsafe_redirect_uris_are_not_registered(
    auth: Auth, admin: dict[str, str], subtests: pytest.Subtests
) -> None:
    for field in ("redirect_uris", "post_logout_redirect_uris"):
        for uri in REFUSED_AT_REGISTRATION:
            with subtests.test(f"{field} {uri[:60]}"):
                answer = await auth.http.post("/clients", json=REPORTS | {field: [uri]}, headers=admin)
                assert answer.status_code == 422
    for changes in (
        {"grant_types": ["authorization_code"]},
        {"public": True},
        {"redirect_uris": [CALLBACK] * 21},
        {"redirect_uris": CALLBACK},
    ):
        answer = await auth.http.post("/clients", json=REPORTS | changes, headers=admin)
        assert answer.status_code == 422, changes


async def test_an_uri_that_is_not_registered_gets_a_page_and_never_a_redirect(
    auth: Auth, register: Register, ada: Person, subtests: pytest.Subtests
) -> None:
    native = {
        "grant_types": ["authorization_code"],
        "redirect_uris": [CALLBACK, LOOPBACK, LOOPBACK6, APP],
        "public": True,
    }
    client = await register(**native)
    assert client["public"]
    assert "client_secret" not in client
    browser = Browser(auth)
    for uri in UNKNOWN_URIS:
        with subtests.test(uri):
            page = await browser.authorize(client["client_id"], redirect_uri=uri, scope=None)
            assert (page.status_code, page.headers["Content-Type"]) == (400, "text/html; charset=utf-8")
    for uri in ("http://127.0.0.1:49152/signed-in", LOOPBACK, "http://[::1]:1/signed-in?kept=1", LOOPBACK6, APP):
        with subtests.test(uri):
            page = await browser.authorize(client["client_id"], redirect_uri=uri, scope="orders:read")
            assert Forms(page.text).action == "/sign-in"
            policy = page.headers["Content-Security-Policy"]
            assert "unsafe" not in policy
            assert "frame-ancestors 'none'" in policy
    for changes in ({"client_id": "unknown"}, {"client_id": None}, {"client_id": "orders"}, {"client_id": "a\x00b"}):
        page = await browser.authorize(**({"client_id": "web"} | changes))
        assert page.status_code == 400
    for name in ("client_id", "redirect_uri"):
        doubled = [*request_of("web").items(), (name, request_of("web")[name])]
        assert (await browser.open("/authorize", httpx.QueryParams(urlencode(doubled)))).status_code == 400
    assert (await browser.http.get("/authorize?" + "x" * 9000)).status_code == 400
    assert (await browser.http.get("/authorize?client_id=web&redirect_uri=%FF")).status_code == 400


async def test_other_faults_go_back_to_the_client_with_state_and_issuer(
    auth: Auth, register: Register, subtests: pytest.Subtests
) -> None:
    scopes = ["openid", "email", "orders:read", "tokens:introspect", "revocations:read"]
    client = await register(grant_types=["authorization_code"], redirect_uris=[CALLBACK], scopes=scopes)
    browser = Browser(auth)
    for changes, error in BACK_TO_THE_CLIENT:
        with subtests.test(str(changes)):
            answer = sent(await browser.authorize(client["client_id"], **({"scope": "openid"} | changes)))
            assert (answer["error"], answer["state"]) == (error, "s1")
    for name in REPEATED:
        with subtests.test(f"{name} repeated"):
            request = request_of(client["client_id"], scope="openid")
            answer = sent(
                await browser.open(
                    "/authorize", httpx.QueryParams(urlencode([*request.items(), (name, "x"), (name, "x")]))
                )
            )
            assert (answer["error"], answer.get("state")) == ("invalid_request", None if name == "state" else "s1")
    for state in ("a b&c=d", "%00", "é€", "\r\nSet-Cookie: x=1", "<script>", "s" * 2000):
        with subtests.test(state[:20]):
            answer = sent(await browser.authorize(client["client_id"], state=state, prompt="none", scope="openid"))
            assert answer["state"] == state
    without_code = await register()
    assert (await browser.authorize(without_code["client_id"])).status_code == 400


async def test_forms_are_accepted_from_the_page_that_this_browser_was_shown_only(
    auth: Auth, ada: Person, register: Register, subtests: pytest.Subtests
) -> None:
    client = await register(grant_types=["authorization_code"], redirect_uris=[CALLBACK])
    browser, other = Browser(auth), Browser(auth)
    page, others = await browser.authorize(client["client_id"], scope="orders:read"), await other.authorize()
    given = {"username": ada.email, "password": PASSWORD}
    form, stranger = Forms(page.text).fields["form"], Forms(others.text).fields["form"]

    async def status(http: httpx.AsyncClient, path: str, data: Any, **headers: str) -> int:
        return (await http.post(path, data=data, headers=headers)).status_code

    cases: dict[str, tuple[int, int]] = {
        "no form": (await status(browser.http, "/sign-in", given), 400),
        "empty": (await status(browser.http, "/sign-in", given | {"form": ""}), 400),
        "garbage": (await status(browser.http, "/sign-in", given | {"form": "gAAAA"}), 400),
        "changed": (await status(browser.http, "/sign-in", given | {"form": form[:-4] + "AAAA"}), 400),
        "another browser's": (await status(browser.http, "/sign-in", given | {"form": stranger}), 400),
        "no cookie": (await status(auth.http, "/sign-in", given | {"form": form}), 400),
        "code instead of password": (await status(browser.http, "/sign-in", {"form": form, "otp": "1"}), 400),
        "another page": (await status(browser.http, "/consent", {"form": form, "decision": "allow"}), 400),
        "sign-out with it": (await status(browser.http, "/sign-out", {"form": form}), 400),
        "foreign origin": (
            await status(browser.http, "/sign-in", given | {"form": form}, Origin="https://evil.example"),
            403,
        ),
        "no origin": (await status(browser.http, "/sign-in", given | {"form": form}, Origin="null"), 403),
        "cross-site": (
            await status(browser.http, "/sign-in", given | {"form": form}, **{"Sec-Fetch-Site": "cross-site"}),
            403,
        ),
        "same-site": (
            await status(browser.http, "/sign-in", given | {"form": form}, **{"Sec-Fetch-Site": "same-site"}),
            403,
        ),
        "repeated field": (
            (
                await browser.http.post(
                    "/sign-in",
                    content=f"form={form}&form={form}",
                    headers={"Content-Type": "application/x-www-form-urlencoded"},
                )
            ).status_code,
            400,
        ),
        "json": ((await browser.http.post("/sign-in", json=given | {"form": form})).status_code, 415),
        "encoded": (
            await status(browser.http, "/sign-in", given | {"form": form}, **{"Content-Encoding": "gzip"}),
            415,
        ),
        "too large": (await status(browser.http, "/sign-in", {"form": "x" * 70_000}), 413),
        "long password": (
            await status(browser.http, "/sign-in", {"form": form} | given | {"password": "p" * 1025}),
            400,
        ),
        "method": ((await browser.http.put("/sign-in")).status_code, 405),
    }
    for name, (seen, expected) in cases.items():
        with subtests.test(name):
            assert seen == expected
    same = {"Origin": "http://gateway.test", "Sec-Fetch-Site": "same-origin"}
    consent = await browser.submit(page, headers=same, **given)
    assert Forms(consent.text).action == "/consent"
    for decision in ("", "yes", "allow "):
        with subtests.test(f"decision {decision!r}"):
            assert (await browser.submit(consent, decision=decision)).status_code == 400
    sealed = Forms(consent.text).fields["form"]
    assert await status(other.http, "/consent", {"form": sealed, "decision": "allow"}) == 400
    assert (await auth.http.get("/consent", params={"form": sealed})).status_code == 400
    assert "code" in sent(await browser.submit(consent, decision="allow"))
    assert await status(browser.http, "/sign-in", given | {"form": form}) == 400


async def test_a_forms_body_cannot_write_into_the_headers_of_its_redirect(auth: Auth) -> None:
    for path in ("/authorize", "/sign-out"):
        for body in (b"a=b\r\nSet-Cookie: waybill=x", b"a=b\nX: y", b"a b", "a=é".encode(), b"\x00"):
            answer = await auth.http.post(path, content=body, headers={"Content-Type": "text/plain"})
            assert (answer.status_code, answer.headers.get("Location")) == (400, None), body


async def test_cookies_that_are_not_ours_sign_nobody_in(auth: Auth, ada: Person, subtests: pytest.Subtests) -> None:
    browser = Browser(auth)
    await browser.code(ada)
    cookie, request = browser.http.cookies["waybill"], request_of("web", scope="openid", prompt="none")
    good = await auth.http.get("/authorize", params=request, headers={"Cookie": f"a=b; waybill={cookie}"})
    assert "code" in sent(good)
    for sent_cookie in (
        *("waybill=", "waybill=x", f"waybill={cookie}x", f"waybill={cookie[:-1]}", f"waybill={cookie.swapcase()}"),
        *(f"waybill={cookie}; waybill={cookie}", f"waybill={'a' * 43}; waybill={cookie}", f"Waybill={cookie}"),
        *(f'waybill="{cookie}"', f"__Host-waybill={cookie}", f"waybill={'é' * 43}", f"waybill=' OR 1=1--{'a' * 33}"),
    ):
        with subtests.test(sent_cookie[:30]):
            answer = await auth.http.get("/authorize", params=request, headers={b"Cookie": sent_cookie.encode()})
            assert sent(answer)["error"] == "login_required"


async def test_names_and_hints_cannot_write_into_the_pages(auth: Auth, ada: Person, register: Register) -> None:
    evil = '"><script>alert(1)</script>'
    client = await register(name=evil, grant_types=["authorization_code"], redirect_uris=[CALLBACK])
    browser = Browser(auth)
    page = await browser.authorize(client["client_id"], login_hint=evil, scope="orders:read")
    assert "<script" not in page.text
    assert Forms(page.text).fields["username"] == evil
    wrong = await browser.submit(page, username=evil, password="x")
    assert "<script" not in wrong.text
    assert "<script" not in (await browser.sign_in(page, ada)).text


async def test_codes_that_are_not_ours_are_refused(auth: Auth, ada: Person, subtests: pytest.Subtests) -> None:
    code = await Browser(auth).code(ada)
    for wrong in ("x", "wbc_", code[:-1], code.upper(), f"{code} ", f" {code}", "wbr_" + code[4:], "é", "a" * 5000):
        with subtests.test(wrong[:20]):
            answer = await exchange(auth, wrong)
            assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
    body = f"grant_type=authorization_code&client_id=web&code={code}&code={code}&redirect_uri={CALLBACK}"
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert (await auth.http.post("/token", content=body, headers=form)).json()["error"] == "invalid_request"
    assert (await exchange(auth, code)).status_code == 200
