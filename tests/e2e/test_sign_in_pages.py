"""The pages of auth in a real browser, on a narrow and on a wide screen, and the way in from Swagger UI.

With `WAYBILL_TEST_PICTURES=docs/images` it saves what the two main pages look like.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from common.testing.plugin import eventually
from waybill_dev.base.state import find_state

from .browser import Page, browsing, find_browser
from .visitor import challenge_of

BROWSER = find_browser()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")]
SHOWN = ("sign-in", "consent")
FITS = "document.documentElement.scrollWidth <= innerWidth"
LABELLED = """[...document.querySelectorAll('input:not([type=hidden])')].every(
    (field) => field.labels.length === 1 && field.labels[0].textContent.trim() && field.autocomplete)"""


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Page]:
    assert BROWSER is not None
    async with browsing(BROWSER, tmp_path) as page:
        yield page


@pytest.fixture
async def callback() -> AsyncIterator[str]:
    """The redirect URI of an app on this machine, which answers anything."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 4\r\nConnection: close\r\n\r\nBack"
        )
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/back"


async def text(page: Page) -> str:
    return str(await page.evaluate("document.body.innerText"))


async def shows(page: Page, words: str) -> None:
    async def seen() -> bool:
        return words in await text(page)

    await eventually(seen)


def save(folder: str, name: str, picture: bytes) -> None:
    (find_state().checkout / folder / name).write_bytes(picture)


async def inspect(page: Page, name: str, width: int) -> None:
    """Checks what every page keeps to, and takes its picture."""
    assert await page.evaluate(FITS), name
    assert await page.evaluate(LABELLED), name
    folder = os.environ.get("WAYBILL_TEST_PICTURES")
    if folder and name in SHOWN:
        save(folder, f"{name}-{width}.png", await page.picture())


@pytest.mark.parametrize("width", [320, 1280])
async def test_a_person_signs_in_allows_a_client_and_signs_out_without_scripts(
    page: Page, stack: Any, admin: Any, customer: Any, callback: str, width: int
) -> None:
    body = {
        "name": "Delivery planner",
        "grant_types": ["authorization_code"],
        "scopes": ["openid", "profile", "email", "orders:read", "orders:write"],
        "redirect_uris": ["http://127.0.0.1/back"],
        "public": True,
    }
    client = (await admin.client.post("/clients", json=body, headers=admin.bearer)).json()
    gateway = stack.addresses["gateway"]
    request = {"response_type": "code", "client_id": client["client_id"], "redirect_uri": callback, "state": "s1"}
    challenge = {"code_challenge": challenge_of("v" * 43), "code_challenge_method": "S256"}
    await page.resize(width)
    await page.forbid_scripts()
    await page.open(f"{gateway}/authorize?{urlencode(request | challenge)}")
    await shows(page, "Delivery planner")
    await inspect(page, "sign-in", width)
    await page.write("[name=username]", customer.email)
    await page.write("[name=password]", "not the password")
    await page.click("button")
    await shows(page, "is wrong")
    await inspect(page, "sign-in-wrong", width)
    assert await page.evaluate("document.querySelector('[name=username]').value") == customer.email
    await page.write("[name=password]", customer.password)
    await page.click("button")
    await shows(page, "Allow Delivery planner?")
    await inspect(page, "consent", width)
    await page.click("button[value=allow]")
    await shows(page, "Back")
    assert str(await page.evaluate("location.href")).startswith(f"{callback}?code=wbc_")
    await page.open(f"{gateway}/sign-out")
    await inspect(page, "sign-out", width)
    await page.click("button")
    await shows(page, "You are signed out")
    await inspect(page, "signed-out", width)
    await page.open(f"{gateway}/authorize?{urlencode(request | challenge)}")
    await shows(page, "Sign in")
    await page.open(f"{gateway}/authorize?client_id=x")
    await shows(page, "does not belong to an application")
    await inspect(page, "unknown-client", width)
    assert page.complaints == []


async def test_swaggers_authorize_button_signs_in_by_the_code_flow(page: Page, stack: Any, customer: Any) -> None:
    await page.resize(1280, 1400)
    await page.open(f"{stack.addresses['gateway']}/docs/orders")
    await wait_for(page, ".btn.authorize")
    await page.click(".btn.authorize")
    await wait_for(page, ".auth-container .btn.authorize")
    assert "authorizationCode with PKCE" in await text(page)
    await page.click(".auth-container .btn.authorize")
    window = await eventually(page.popup)
    assert window is not None
    await wait_for(window, "[name=password]")
    await window.write("[name=username]", customer.email)
    await window.write("[name=password]", customer.password)
    await window.click("main button")

    async def authorized() -> bool:
        return "Logout" in await text(page)

    await eventually(authorized)
    assert page.complaints == []


async def wait_for(page: Page, selector: str) -> None:
    async def present() -> bool:
        return bool(await page.evaluate(f"!!document.querySelector({selector!r})"))

    await eventually(present)
