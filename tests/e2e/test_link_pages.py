"""The links in mails, opened and clicked in a browser."""

import re
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from common.testing.plugin import eventually

from .browser import Page, browsing, find_browser
from .conftest import Mailbox, Person, SignUp, plain_text, sign_in

BROWSER = find_browser()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")]


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Page]:
    assert BROWSER is not None
    async with browsing(BROWSER, tmp_path) as page:
        yield page


@pytest.fixture
async def ada(sign_up: SignUp) -> Person:
    return await sign_up()


async def link_to(mailbox: Mailbox, address: str, path: str) -> str:
    mail = await mailbox.wait_for(address, path)
    [link] = re.findall(r"http\S+\?token=\S+", plain_text(mail))
    return str(link)


async def shows(page: Page, words: str) -> None:
    async def seen() -> bool:
        return words in await page.evaluate("document.querySelector('[role=status]').textContent")

    await eventually(seen)


async def is_verified(person: Person) -> bool:
    return bool((await person.get("/me")).json()["email_verified"])


async def test_a_click_verifies_the_address_and_opening_the_link_alone_does_not(
    page: Page, ada: Person, mailbox: Mailbox
) -> None:
    assert (await ada.client.post("/email-verifications", headers=ada.bearer)).status_code == 202
    link = await link_to(mailbox, ada.email, "/email-verifications/page")
    await page.open(link)
    assert await page.evaluate("document.title") == "Verify your e-mail address"
    assert await page.evaluate("location.href + history.length") == f"{link.partition('?')[0]}2"
    assert not await is_verified(ada)
    await page.click("button")
    await shows(page, "Your e-mail address is verified.")
    assert await is_verified(ada)
    assert await page.evaluate("document.querySelector('form').offsetParent") is None
    await page.open(link)
    await page.click("button")
    await shows(page, "This link is invalid or has expired")
    assert page.complaints == []


async def test_a_password_is_reset_and_a_weak_one_does_not_use_up_the_link(
    page: Page, ada: Person, mailbox: Mailbox, gateway: httpx.AsyncClient
) -> None:
    assert (await gateway.post("/password-resets", json={"email": ada.email})).status_code == 202
    await page.open(await link_to(mailbox, ada.email, "/password-resets/page"))
    await page.write("input", "too short")
    await page.click("button")
    assert await page.evaluate("document.querySelector('input').validity.tooShort")
    await page.write("input", "password12345")
    await page.click("button")
    await shows(page, "The password is on a list of common passwords.")
    new = secrets.token_urlsafe(18)
    await page.write("input", new)
    await page.click("button")
    await shows(page, "Your password is changed.")
    assert (await sign_in(gateway, ada.email, new))["access_token"]
    assert new not in await page.evaluate("location.href + document.body.innerText")
    assert page.complaints == []
