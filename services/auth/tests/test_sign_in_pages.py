"""The sign-in pages: their cookie, their messages, and the page that asks for a code."""

import httpx

from auth.settings import Settings

from .browsing import Browser, Forms, sent
from .conftest import PASSWORD, Auth, Person, Users, serving
from .test_code_flow import ada, settings

__all__ = ["ada", "settings"]


async def test_the_cookie_is_renewed_at_sign_in_and_kept_from_scripts(auth: Auth, ada: Person) -> None:
    browser = Browser(auth)
    page = await browser.authorize()
    before = browser.http.cookies["waybill"]
    form = Forms(page.text)
    answer = await browser.http.post("/sign-in", data=form.fields | {"username": ada.email, "password": PASSWORD})
    after = browser.http.cookies["waybill"]
    assert before != after
    session, device = answer.headers.get_list("set-cookie")
    assert session == f"waybill={after}; HttpOnly; Path=/; SameSite=lax"
    assert (
        device
        == f"waybill-device={browser.http.cookies['waybill-device']}; HttpOnly; Max-Age=15552000; Path=/; SameSite=lax"
    )
    planted = Browser(auth)
    planted.http.cookies["waybill"] = before
    assert Forms((await planted.authorize()).text).action == "/sign-in"


async def test_over_https_the_cookie_is_of_this_host_alone(settings: Settings, users: Users, ada: Person) -> None:
    async with serving(settings.model_copy(update={"public_url": "https://gateway.test"}), users) as auth:
        answer = await auth.http.get("/sign-in")
        [cookie] = answer.headers.get_list("set-cookie")
        assert cookie.startswith("__Host-waybill=")
        assert cookie.endswith("; HttpOnly; Path=/; SameSite=lax; Secure")


async def test_wrong_credentials_get_one_message_and_throttling_is_shown(auth: Auth, ada: Person) -> None:
    browser = Browser(auth)
    page = await browser.authorize(login_hint="ada@example.com")
    assert Forms(page.text).fields["username"] == "ada@example.com"
    unknown = await browser.submit(page, username="bob@example.com", password=PASSWORD)
    wrong = await browser.submit(page, username=ada.email, password="wrong password")
    assert unknown.status_code == wrong.status_code == 400
    assert "is wrong" in Forms(unknown.text).text
    assert Forms(unknown.text).text == Forms(wrong.text).text
    auth.users.override = lambda: httpx.Response(429, headers={"Retry-After": "7"}, json={"code": "too_many_requests"})
    throttled = await browser.submit(page, username=ada.email, password=PASSWORD)
    assert (throttled.status_code, throttled.headers["Retry-After"]) == (429, "7")
    assert "Try again in 7 seconds" in throttled.text
    auth.users.override = lambda: httpx.Response(503)
    assert (await browser.submit(page, username=ada.email, password=PASSWORD)).status_code == 503
    auth.users.override = None
    assert "code" in sent(await browser.submit(page, username=ada.email, password=PASSWORD))


async def test_a_code_of_the_second_factor_is_asked_for_on_a_page_of_its_own(auth: Auth, users: Users) -> None:
    ada = users.add("ada@example.com", code="123456")
    browser = Browser(auth)
    page = await browser.sign_in(await browser.authorize(), ada)
    assert PASSWORD not in page.text
    wrong = await browser.submit(page, otp="000000")
    assert (wrong.status_code, list(Forms(wrong.text).fields)) == (400, ["form", "otp"])
    assert "code" in sent(await browser.submit(wrong, otp="123456"))
    at_once = Browser(auth)
    page = await at_once.authorize()
    answer = await at_once.submit(page, username=ada.email, password=PASSWORD, otp="123456")
    assert "code" in sent(answer)


async def test_the_sign_in_page_alone_signs_a_browser_in(auth: Auth, ada: Person) -> None:
    browser = Browser(auth)
    answer = await browser.sign_in(await browser.open("/sign-in"), ada)
    assert "You are signed in" in answer.text
    assert "code" in sent(await browser.authorize(prompt="none"))
