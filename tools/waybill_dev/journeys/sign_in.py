"""An access token for a person, as a first-party client gets it."""

from typing import Any

import httpx

from waybill_dev.errors import LocalError


async def access_token(client: httpx.AsyncClient, email: str, password: str) -> str:
    """Raises LocalError when auth refuses or does not answer."""
    form = {"grant_type": "password", "username": email, "password": password}
    try:
        answer = await client.post("/token", data=form)
    except httpx.TransportError as error:
        raise LocalError(f"the gateway does not answer: {type(error).__name__} {error}") from error
    if not answer.is_success:
        raise LocalError(f"no token for {email}: {_reason(answer)} (HTTP {answer.status_code})")
    token: str = answer.json()["access_token"]
    return token


def _reason(answer: httpx.Response) -> str:
    """The description of an OAuth error, or the detail of a problem; else the body as it is."""
    try:
        content: dict[str, Any] = answer.json()
    except ValueError:
        return answer.text
    return next((str(content[name]) for name in ("error_description", "detail", "error") if content.get(name)), "?")
