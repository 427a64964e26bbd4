"""Decides what follows an authorization request: a page, or a redirect to the client with a code or an error.

This code owns its transactions.
"""

from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlencode

from sqlalchemy.ext.asyncio import AsyncSession

from auth import queries
from auth.browser_models import BrowserSession
from auth.clients.registry import RegisteredClient, find_client
from auth.errors import AccessDenied, ConsentRequired, LoginRequired, OAuthError, UnknownClient
from auth.keys.keyring import Keyring
from auth.redirect_uris import is_registered
from auth.sessions import consents
from auth.sessions.browser import cookie_hash
from auth.sessions.codes import CodeContent, issue_code
from auth.sessions.queries import browser_session
from auth.settings import Settings
from auth.signing_in.parameters import AuthorizationRequest, Parameters, read_request
from auth.tokens.identity import TYPE as ID_TOKEN
from common.db.database import Database, utc_now

Answer = Literal["allow", "deny"]


@dataclass(frozen=True, slots=True)
class SendTo:
    """Back to the client."""

    location: str


@dataclass(frozen=True, slots=True)
class AskToSignIn:
    request: AuthorizationRequest


@dataclass(frozen=True, slots=True)
class AskForConsent:
    request: AuthorizationRequest


Decision = SendTo | AskToSignIn | AskForConsent


class Authorization:
    def __init__(self, settings: Settings, database: Database, keyring: Keyring) -> None:
        self._settings = settings
        self._database = database
        self._keyring = keyring

    async def read(self, query: str) -> AuthorizationRequest | SendTo:
        """The request, or the redirect that reports its error.

        Raises `UnknownClient` or `InvalidRequest` where no redirect is safe: the URI may be an attacker's.
        """
        parameters = Parameters(query)
        client, redirect_uri = await self._client(parameters)
        try:
            return read_request(parameters, client, redirect_uri, self._settings)
        except OAuthError as error:
            return self._error(redirect_uri, parameters.sole("state"), error)

    async def decide(
        self, query: str, cookie: str, *, is_fresh: bool = False, answer: Answer | None = None
    ) -> Decision:
        """`is_fresh`: the person has signed in for this request. `answer` is theirs to the question for consent.

        Raises as `read`.
        """
        request = await self.read(query)
        if isinstance(request, SendTo):
            return request
        async with self._database.transaction() as session:
            try:
                return await self._decide(session, request, cookie, is_fresh=is_fresh, answer=answer)
            except OAuthError as error:
                return self._error(request.redirect_uri, request.state, error)

    async def _decide(
        self,
        session: AsyncSession,
        request: AuthorizationRequest,
        cookie: str,
        *,
        is_fresh: bool,
        answer: Answer | None,
    ) -> Decision:
        now = utc_now()
        browser = await browser_session(session, cookie_hash(cookie), now=now)
        if browser is None or not self._is_acceptable(request, browser, is_fresh=is_fresh):
            if "none" in request.prompts:
                raise LoginRequired
            return AskToSignIn(request)
        if not request.client.is_first_party:
            if answer == "deny":
                raise AccessDenied
            client_id = request.client.client_id
            await queries.lock_subject(session, browser.user_id)
            if answer == "allow":
                await consents.allow(session, browser.user_id, client_id, request.scopes, now=now)
            is_covered = await consents.covers(session, browser.user_id, client_id, request.scopes)
            if not is_covered or ("consent" in request.prompts and answer is None):
                if "none" in request.prompts:
                    raise ConsentRequired
                return AskForConsent(request)
        content = CodeContent(
            client_id=request.client.client_id,
            redirect_uri=request.redirect_uri,
            scopes=request.scopes,
            resources=request.resources,
            code_challenge=request.code_challenge,
            nonce=request.nonce,
        )
        code = issue_code(session, browser, content, now=now)
        return self._redirect(request.redirect_uri, request.state, code=code)

    def _is_acceptable(self, request: AuthorizationRequest, browser: BrowserSession, *, is_fresh: bool) -> bool:
        """Whether the browser's sign-in is one that the client asks for (OpenID Connect Core 1.0 §3.1.2.1).

        Raises `LoginRequired` if somebody else has just signed in.
        """
        if request.id_token_hint is not None:
            hint = self._keyring.claims_of(request.id_token_hint, token_type=ID_TOKEN)
            if is_fresh and hint is not None and hint.get("sub") != str(browser.user_id):
                raise LoginRequired
            if not is_fresh and (hint is None or hint.get("sub") != str(browser.user_id)):
                return False
        if is_fresh:
            return True
        age = (utc_now() - browser.authenticated_at).total_seconds()
        return "login" not in request.prompts and (request.max_age is None or age <= request.max_age)

    async def _client(self, parameters: Parameters) -> tuple[RegisteredClient, str]:
        client_id, redirect_uri = parameters.sole("client_id"), parameters.sole("redirect_uri")
        if client_id is None or redirect_uri is None or "\x00" in client_id:
            raise UnknownClient
        client = await find_client(client_id, self._settings, self._database)
        if client is None or not is_registered(redirect_uri, client.redirect_uris):
            raise UnknownClient
        return client, redirect_uri

    def _error(self, redirect_uri: str, state: str | None, error: OAuthError) -> SendTo:
        return self._redirect(redirect_uri, state, error=error.code, error_description=error.detail)

    def _redirect(self, redirect_uri: str, state: str | None, **parameters: str) -> SendTo:
        """With `iss`, by which a client of several servers knows whose response it is (RFC 9207)."""
        added = parameters | ({"state": state} if state is not None else {}) | {"iss": self._settings.public_url}
        return SendTo(f"{redirect_uri}{'&' if '?' in redirect_uri else '?'}{urlencode(added)}")
