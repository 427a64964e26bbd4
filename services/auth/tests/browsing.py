"""A browser without a screen: it keeps cookies, follows redirects within auth, and fills in forms."""

import base64
import hashlib
import secrets
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx

from .conftest import PASSWORD, Auth, Person

ISSUER = "http://gateway.test"
CALLBACK = "https://shop.example/signed-in"
VERIFIER = secrets.token_urlsafe(32)


def challenge_of(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


class Forms(HTMLParser):
    """The page's form: its action, its fields with their values, and its visible text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.action = ""
        self.fields: dict[str, str] = {}
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "form":
            self.action = given["action"] or ""
        elif tag == "input":
            self.fields[given["name"] or ""] = given.get("value") or ""

    def handle_data(self, data: str) -> None:
        self.text += data


@dataclass
class Browser:
    auth: Auth
    http: httpx.AsyncClient = field(init=False)

    def __post_init__(self) -> None:
        self.http = httpx.AsyncClient(transport=self.auth.http._transport, base_url=ISSUER)

    async def authorize(self, client_id: str = "web", **changes: str | None) -> httpx.Response:
        """The request's response after the redirects within auth. A change to None leaves the parameter out."""
        return await self.open("/authorize", request_of(client_id, **changes))

    async def open(self, path: str, parameters: Any = None) -> httpx.Response:
        return await self.follow(await self.http.get(path, params=parameters))

    async def follow(self, answer: httpx.Response) -> httpx.Response:
        while answer.status_code == 303 and answer.headers["Location"].startswith("/"):
            answer = await self.http.get(answer.headers["Location"])
        return answer

    async def submit(
        self, page: httpx.Response, *, headers: dict[str, str] | None = None, **fields: str
    ) -> httpx.Response:
        """Sends the page's form, and follows."""
        form = Forms(page.text)
        return await self.follow(await self.http.post(form.action, data=form.fields | fields, headers=headers))

    async def sign_in(self, page: httpx.Response, person: Person, password: str = PASSWORD) -> httpx.Response:
        assert Forms(page.text).action == "/sign-in", page.text
        return await self.submit(page, username=person.email, password=password)

    async def code(self, person: Person, client_id: str = "web", **changes: str | None) -> str:
        """A code for the client: signs in and allows what is asked where the pages ask for it."""
        answer = await self.authorize(client_id, **changes)
        if answer.status_code == 200 and Forms(answer.text).action == "/sign-in":
            answer = await self.sign_in(answer, person)
        if answer.status_code == 200 and Forms(answer.text).action == "/consent":
            answer = await self.submit(answer, decision="allow")
        return sent(answer)["code"]


def request_of(client_id: str, **changes: str | None) -> dict[str, str]:
    parameters: dict[str, str | None] = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": CALLBACK,
        "scope": "openid profile email orders:read",
        "state": "s1",
        "nonce": "n1",
        "code_challenge": challenge_of(VERIFIER),
        "code_challenge_method": "S256",
        **changes,
    }
    return {name: value for name, value in parameters.items() if value is not None}


def sent(answer: httpx.Response) -> dict[str, str]:
    """What a redirect to the client carries. It always names the issuer (RFC 9207)."""
    assert answer.status_code == 303, answer.text
    parameters = parse_qsl(urlsplit(answer.headers["Location"]).query, strict_parsing=True)
    assert len(parameters) == len(dict(parameters))
    assert dict(parameters)["iss"] == ISSUER
    return dict(parameters)


async def exchange(auth: Auth, code: str, client: dict[str, Any] | str = "web", **changes: str) -> httpx.Response:
    """Exchanges the code, with Basic credentials where the client has a secret."""
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK, "code_verifier": VERIFIER}
    if isinstance(client, dict) and client.get("client_secret"):
        credentials = httpx.BasicAuth(client["client_id"], client["client_secret"])
        return await auth.http.post("/token", data=form | changes, auth=credentials)
    client_id = client if isinstance(client, str) else client["client_id"]
    return await auth.http.post("/token", data=form | {"client_id": client_id} | changes)
