"""An access token for a person, as a first-party client gets it."""

import base64
import hashlib
import re
import secrets
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx

from waybill_dev.errors import LocalError


async def access_token(client: httpx.AsyncClient, email: str, password: str) -> str:
    """Raises LocalError when auth refuses or does not answer."""
    form = {"grant_type": "password", "username": email, "password": password}
    try:
        answer = await client.post("/token", data=form)
        if answer.status_code == 400 and answer.json().get("error") == "unsupported_grant_type":
            answer = await _by_pages(client, email, password)
    except httpx.TransportError as error:
        raise LocalError(f"the gateway does not answer: {type(error).__name__} {error}") from error
    if not answer.is_success:
        raise LocalError(f"no token for {email}: {_reason(answer)} (HTTP {answer.status_code})")
    token: str = answer.json()["access_token"]
    return token


async def _by_pages(client: httpx.AsyncClient, email: str, password: str) -> httpx.Response:
    """The authorization code flow, for where the password grant is off: signs in on the page, exchanges the code."""
    verifier, state = secrets.token_urlsafe(32), secrets.token_urlsafe(16)
    issuer = (await client.get("/.well-known/openid-configuration")).json()["issuer"]
    redirect_uri = f"{issuer}/docs/auth/assets/oauth2-redirect.html"
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    request = {"response_type": "code", "client_id": "web", "redirect_uri": redirect_uri, "state": state}
    request |= {"code_challenge": challenge, "code_challenge_method": "S256"}
    answer = await client.get("/authorize", params=request, follow_redirects=True)
    sealed = re.search(r'name="form" value="([^"]+)"', answer.text)
    if sealed is None:
        return answer
    form = {"form": sealed[1], "username": email, "password": password}
    answer = await client.post("/sign-in", data=form)
    sent = dict(parse_qsl(urlsplit(answer.headers.get("Location", "")).query))
    if "code" not in sent or sent.get("state") != state:
        return answer
    exchange = {"grant_type": "authorization_code", "client_id": "web", "code": sent["code"]}
    return await client.post("/token", data=exchange | {"redirect_uri": redirect_uri, "code_verifier": verifier})


def _reason(answer: httpx.Response) -> str:
    """The description of an OAuth error, or the detail of a problem; else the body as it is."""
    try:
        content: dict[str, Any] = answer.json()
    except ValueError:
        alert = re.search(r'role="alert"[^>]*>([^<]+)<', answer.text)
        return alert[1] if alert is not None else answer.text
    return next((str(content[name]) for name in ("error_description", "detail", "error") if content.get(name)), "?")
