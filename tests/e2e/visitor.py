"""A person at a browser without a screen: signs in, allows what is asked, and ends where the client is called back."""

import base64
import hashlib
import re
from urllib.parse import parse_qsl, urlsplit

import httpx


async def visit(gateway: httpx.AsyncClient, url: str, fields: dict[str, str]) -> str:
    """The address outside the gateway to which the pages lead. `fields` fill in the sign-in page."""
    async with httpx.AsyncClient(base_url=gateway.base_url, timeout=30) as browser:
        answer = await browser.get(url)
        for _ in range(10):
            location = answer.headers.get("Location", "")
            if location.startswith("/"):
                answer = await browser.get(location)
                continue
            if location:
                return str(location)
            action = re.search(r'<form method="post" action="([^"]+)"', answer.text)
            sealed = re.search(r'name="form" value="([^"]+)"', answer.text)
            assert action is not None, answer.text
            assert sealed is not None, answer.text
            filled = fields if action[1] == "/sign-in" else {"decision": "allow"}
            answer = await browser.post(action[1], data=filled | {"form": sealed[1]})
    raise AssertionError("the pages lead nowhere")


def sent(location: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(location).query))


def challenge_of(verifier: str) -> str:
    """RFC 7636 §4.2."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
