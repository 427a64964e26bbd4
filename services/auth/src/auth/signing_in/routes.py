"""The pages of the authorization code flow: the request, the sign-in, the consent."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

from fastapi import Request, Response

from auth.clients.registry import DEFAULT_CLIENT
from auth.errors import InvalidGrant, InvalidRequest, MfaRequired, OAuthError, TemporarilyUnavailable, Throttled
from auth.oauth.sign_in import SignInCheck
from auth.sessions.browser import cookie_hash, start_browser_session
from auth.sessions.handlers import Refused, VerifiedPerson, describe_device
from auth.sessions.queries import browser_session
from auth.signing_in import pages
from auth.signing_in.authorization import Answer, AskForConsent, Decision, SendTo
from auth.signing_in.browser import BrowserCookie, DeviceCookie, PageRoute, page, read_form, see_other
from auth.signing_in.form_state import FormState
from auth.signing_in.parameters import AuthorizationRequest
from auth.tokens.device import KnownDevice
from common.db.database import new_id, utc_now
from common.web import ApiRouter
from common.web.headers import client_address

router: Final = ApiRouter(tags=["signing in"], route_class=PageRoute)

_WRONG_PASSWORD: Final = "The e-mail address or the password is wrong."  # noqa: S105 - what a page says
_WRONG_CODE: Final = "The code is wrong, or was used before."
_ATTEMPTS: Final = 3
"""Further ones if the person changed at users between verification and sign-in."""
_ANSWERS: Final[Mapping[str, Answer]] = {"allow": "allow", "deny": "deny"}
_PARAMETERS: Final = {
    "response_type": "`code`.",
    "client_id": "The client.",
    "redirect_uri": "One of the client's redirect URIs. On http://127.0.0.1 and http://[::1] the port is free.",
    "scope": "Scopes, separated by spaces. With `openid` the client gets an ID token.",
    "state": "Comes back unchanged.",
    "code_challenge": "The SHA-256 of the code verifier, in base64url (RFC 7636).",
    "code_challenge_method": "`S256`.",
    "nonce": "Comes back in the ID token.",
    "prompt": "`none` (show no page), `login` (ask for the password again), `consent` (ask for consent again).",
    "max_age": "Seconds since the sign-in after which the person signs in again.",
    "login_hint": "The e-mail address to show on the sign-in page.",
    "resource": "The audience of the access token (RFC 8707). By default all services.",
}
_HTML: Final[dict[int | str, dict[str, Any]]] = {
    status: {"description": text, "content": {"text/html": {"schema": {"type": "string"}}}}
    for status, text in {
        400: "A page: client or redirect URI are unknown",
        500: "Internal error",
        503: "A page: unavailable",
    }.items()
}


@router.get(
    "/authorize",
    status_code=303,
    response_class=Response,
    responses=_HTML | {303: {"description": "To a page, or to the client with `code` or `error`, `state` and `iss`"}},
    openapi_extra={
        "parameters": [
            {"name": name, "in": "query", "schema": {"type": "string"}, "description": text}
            for name, text in _PARAMETERS.items()
        ]
    },
)
async def authorize(request: Request) -> Response:
    """Begins the authorization code flow (RFC 6749 §4.1, OpenID Connect Core 1.0). For browsers."""
    query = request.scope["query_string"].decode("latin-1")
    cookie = BrowserCookie.of(request)
    return _follow(request, await request.state.authorization.decide(query, cookie.value), query, cookie)


@router.post("/authorize", include_in_schema=False)
async def authorize_by_form(request: Request) -> Response:
    """The same by a form (OpenID Connect Core 1.0 §3.1.2.1)."""
    return see_other(f"/authorize?{(await request.body()).decode('latin-1')}")


@router.get("/sign-in", include_in_schema=False)
async def show_sign_in(request: Request) -> Response:
    cookie, query = BrowserCookie.of(request), request.query_params.get("continue")
    if query is None and await _is_signed_in(request, cookie.value):
        return page(pages.signed_in_page())
    return await _show_sign_in(request, cookie, query)


@router.post("/sign-in", include_in_schema=False)
async def sign_in(request: Request) -> Response:
    """Takes `username`, `password` and `otp`. From the page that asks for a code alone it takes `otp`."""
    form, cookie = await read_form(request), BrowserCookie.of(request)
    kind = "sign_in" if form.get("username") is not None else "code"
    state = request.state.form_seal.open(form.get("form"), cookie=cookie.value, page=kind)
    username = form.get("username") or state.username
    password, otp = form.get("password") or state.password, form.get("otp")
    try:
        renewed, person = await _start(request, cookie, username, password, otp=otp, client_id=_client_of(state.query))
    except MfaRequired:
        carried = state.model_copy(update={"page": "code", "username": username, "password": password})
        return await _show_code(request, cookie, carried)
    except (InvalidGrant, Throttled, TemporarilyUnavailable) as error:
        if kind == "code":
            return await _show_code(request, cookie, state, error=error)
        return await _show_sign_in(request, cookie, state.query, username=username, error=error)
    if state.query is None:
        response = see_other("/sign-in")
    else:
        decision = await request.state.authorization.decide(state.query, renewed.value, is_fresh=True)
        response = _follow(request, decision, state.query, renewed, is_fresh=True)
    renewed.set(response)
    known = DeviceCookie(request)
    is_theirs = known.device is not None and known.device.user_id == person.user_id
    known.set(
        response, known.device if known.device is not None and is_theirs else KnownDevice(person.user_id, new_id())
    )
    return response


@router.get("/consent", include_in_schema=False)
async def show_consent(request: Request) -> Response:
    cookie = BrowserCookie.of(request)
    state = request.state.form_seal.open(request.query_params.get("form"), cookie=cookie.value, page="consent")
    asked = await request.state.authorization.read(state.query)
    if isinstance(asked, SendTo):
        return see_other(asked.location)
    form = request.state.form_seal.seal(state, cookie=cookie.value)
    other = None if asked.prompts else f"/authorize?{state.query}&prompt=login"
    return page(pages.consent_page(form=form, request=asked, other_account=other), request=asked)


@router.post("/consent", include_in_schema=False)
async def answer_consent(request: Request) -> Response:
    form, cookie = await read_form(request), BrowserCookie.of(request)
    state = request.state.form_seal.open(form.get("form"), cookie=cookie.value, page="consent")
    answer = _ANSWERS.get(form.require("decision"))
    if answer is None:
        raise InvalidRequest("decision must be allow or deny")
    decision = await request.state.authorization.decide(
        state.query, cookie.value, is_fresh=state.is_fresh, answer=answer
    )
    return _follow(request, decision, state.query, cookie, is_fresh=state.is_fresh)


def _follow(
    request: Request, decision: Decision, query: str, cookie: BrowserCookie, *, is_fresh: bool = False
) -> Response:
    """The redirect to the client or to a page."""
    if isinstance(decision, SendTo):
        return see_other(decision.location)
    if isinstance(decision, AskForConsent):
        state = FormState(page="consent", query=query, is_fresh=is_fresh)
        form = request.state.form_seal.seal(state, cookie=cookie.value)
        return see_other(f"/consent?{urlencode({'form': form})}")
    return see_other(f"/sign-in?{urlencode({'continue': query})}")


async def _show_sign_in(
    request: Request,
    cookie: BrowserCookie,
    query: str | None,
    *,
    username: str = "",
    error: OAuthError | None = None,
) -> Response:
    asked = None if query is None else await request.state.authorization.read(query)
    if isinstance(asked, SendTo):
        return see_other(asked.location)
    form = request.state.form_seal.seal(FormState(page="sign_in", query=query), cookie=cookie.value)
    html = pages.sign_in_page(form=form, request=asked, username=username, fault=_fault(error, _WRONG_PASSWORD))
    response = _page(html, asked, error)
    cookie.set(response)
    return response


async def _show_code(
    request: Request, cookie: BrowserCookie, state: FormState, *, error: OAuthError | None = None
) -> Response:
    asked = None if state.query is None else await request.state.authorization.read(state.query)
    if isinstance(asked, SendTo):
        return see_other(asked.location)
    form = request.state.form_seal.seal(state, cookie=cookie.value)
    return _page(pages.code_page(form=form, fault=_fault(error, _WRONG_CODE)), asked, error)


def _page(html: str, asked: AuthorizationRequest | None, error: OAuthError | None) -> Response:
    if error is None:
        return page(html, request=asked)
    return page(html, request=asked, status=error.status, headers=error.headers)


def _fault(error: OAuthError | None, wrong: str) -> str | None:
    if isinstance(error, Throttled):
        return f"Too many attempts. Try again in {error.headers.get('Retry-After', '5')} seconds."
    if isinstance(error, TemporarilyUnavailable):
        return "Signing in is not possible right now. Try again in a moment."
    return None if error is None else wrong


async def _start(
    request: Request, cookie: BrowserCookie, username: str, password: str, *, otp: str | None, client_id: str
) -> tuple[BrowserCookie, VerifiedPerson]:
    """Verifies the credentials and signs the person in. Returns the browser's new cookie, and the person."""
    state, renewed, known_version = request.state, cookie.renewed(), None
    check: SignInCheck = state.sign_in_check
    network, known = client_address(request), DeviceCookie(request)
    device = await check.known(known.device, known.since)
    origin = check.origin(network, describe_device(request.headers.get("user-agent", "")), client_id)
    person = None
    for _ in range(_ATTEMPTS):
        person = await check.verify(
            username, password, network=network, origin=origin, otp=otp, device=device, stale=person
        )
        async with state.database.transaction() as session:
            outcome = await start_browser_session(
                session,
                person,
                origin,
                cookie=renewed.value,
                replaced_cookie=cookie.value,
                known_version=known_version,
                lifetime=timedelta(hours=state.settings.browser_session_hours),
                now=utc_now(),
            )
        if not isinstance(outcome, Refused):
            return renewed, person
        known_version = outcome.known_version
        if outcome.reason != "stale":
            raise InvalidGrant
    raise TemporarilyUnavailable(headers={"Retry-After": "1"})


def _client_of(query: str | None) -> str:
    """The client of an authorization request that was checked before, or ours for a sign-in without one."""
    return dict(parse_qsl(query or "")).get("client_id", DEFAULT_CLIENT)


async def _is_signed_in(request: Request, cookie: str) -> bool:
    async with request.state.database.transaction() as session:
        return await browser_session(session, cookie_hash(cookie), now=utc_now()) is not None
