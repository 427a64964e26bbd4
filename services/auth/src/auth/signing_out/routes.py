"""`/sign-out`: at once for a client that shows whose session it ends, otherwise after the person's click."""

import uuid
from typing import Any, Final
from urllib.parse import urlencode

from fastapi import Request, Response

from auth.clients.registry import find_client
from auth.errors import UnknownClient
from auth.redirect_uris import is_registered, policy_source
from auth.sessions.browser import cookie_hash, end_browser_session, end_session_by_hint
from auth.sessions.queries import browser_session
from auth.signing_in import pages
from auth.signing_in.browser import BrowserCookie, PageRoute, page, read_form, see_other
from auth.signing_in.form_state import FormState
from auth.signing_in.parameters import Parameters
from auth.tokens.identity import TYPE as ID_TOKEN
from common.db.database import utc_now
from common.web import ApiRouter

router: Final = ApiRouter(tags=["signing out"], route_class=PageRoute)


@router.get("/sign-out", include_in_schema=False)
async def show_sign_out(request: Request) -> Response:
    """Takes `id_token_hint`, `client_id`, `post_logout_redirect_uri` and `state`."""
    query, cookie = request.scope["query_string"].decode("latin-1"), BrowserCookie.of(request)
    hint, location = await _read(request, query)
    async with request.state.database.transaction() as session:
        browser = await browser_session(session, cookie_hash(cookie.value), now=utc_now())
        is_own = False
        if hint is not None and (browser is None or hint["sub"] == str(browser.user_id)):
            is_own = True
            if browser is not None:
                await end_browser_session(session, browser, now=utc_now())
            await end_session_by_hint(session, uuid.UUID(hint["sid"]), user_id=uuid.UUID(hint["sub"]), now=utc_now())
    if is_own or (browser is None and location is None):
        return _goodbye(cookie, location)
    form = request.state.form_seal.seal(FormState(page="sign_out", query=query), cookie=cookie.value)
    response = page(pages.sign_out_page(form=form), targets=() if location is None else (policy_source(location),))
    cookie.set(response)
    return response


@router.post("/sign-out", include_in_schema=False)
async def sign_out(request: Request) -> Response:
    """The page's form. A client's own form (RP-Initiated Logout 1.0 §2) becomes the request above."""
    content = (await request.body()).decode("latin-1")
    if "form=" not in content:
        return see_other(f"/sign-out?{content}")
    form, cookie = await read_form(request), BrowserCookie.of(request)
    state = request.state.form_seal.open(form.get("form"), cookie=cookie.value, page="sign_out")
    _, location = await _read(request, state.query)
    async with request.state.database.transaction() as session:
        browser = await browser_session(session, cookie_hash(cookie.value), now=utc_now())
        if browser is not None:
            await end_browser_session(session, browser, now=utc_now())
    return _goodbye(cookie, location)


async def _read(request: Request, query: str) -> tuple[dict[str, Any] | None, str | None]:
    """The claims of the hint, if it is an ID token of ours, and where to go afterwards.

    Raises `UnknownClient` for an address that is not registered: the person would land on a stranger's page.
    """
    parameters, settings = Parameters(query), request.state.settings
    parameters.check()
    token = parameters.sole("id_token_hint")
    hint = None if token is None else request.state.keyring.claims_of(token, token_type=ID_TOKEN)
    if hint is not None and hint["iss"] != settings.public_url:
        hint = None
    client_id, location = parameters.sole("client_id"), parameters.sole("post_logout_redirect_uri")
    if hint is not None and client_id not in (None, hint["aud"]):
        raise UnknownClient
    if location is None:
        return hint, None
    named = hint["aud"] if hint is not None else client_id
    client = None if named is None else await find_client(named, settings, request.state.database)
    if client is None or not is_registered(location, client.post_logout_redirect_uris):
        raise UnknownClient
    state = parameters.sole("state")
    if state is not None:
        location += f"{'&' if '?' in location else '?'}{urlencode({'state': state})}"
    return hint, location


def _goodbye(cookie: BrowserCookie, location: str | None) -> Response:
    if location is not None:
        response = see_other(location)
    else:
        response = page(pages.message_page("You are signed out", "You can close this page."))
    cookie.clear(response)
    return response
