"""Parses the parameters of an authorization request (RFC 6749 §4.1.1, RFC 7636, RFC 8707, OpenID Connect Core 1.0)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl

from auth.clients.registry import RegisteredClient
from auth.errors import (
    InvalidRequest,
    OAuthError,
    RegistrationNotSupported,
    RequestNotSupported,
    RequestUriNotSupported,
    UnauthorizedClient,
    UnsupportedResponseType,
)
from auth.scopes import IDENTITY_SCOPES, narrow_resources, narrow_scope
from auth.settings import Settings

MAX_QUERY: Final = 8192
"""Characters."""
_MOST_PARAMETERS: Final = 100
_REPEATABLE: Final = frozenset({"resource"})  # RFC 8707 §2
_CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}")
"""A SHA-256 in base64url (RFC 7636 §4.2)."""
_SECONDS: Final = re.compile(r"[0-9]{1,9}")
_PROMPTS: Final = frozenset({"none", "login", "consent"})
_LONGEST_NONCE: Final = 1024
_UNSUPPORTED: Final[Mapping[str, type[OAuthError]]] = {
    "request": RequestNotSupported,
    "request_uri": RequestUriNotSupported,
    "registration": RegistrationNotSupported,
}


class Parameters:
    """The parameters of a query, in which one without a value is treated as omitted (RFC 6749 §3.1)."""

    def __init__(self, query: str) -> None:
        """Raises `InvalidRequest` for a query that is too long or cannot be decoded."""
        try:
            if len(query) > MAX_QUERY:
                raise ValueError
            pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=_MOST_PARAMETERS)
        except ValueError:
            raise InvalidRequest("The request is malformed or too long") from None
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            self._values.setdefault(name, []).append(value)

    def sole(self, name: str) -> str | None:
        """The value, None also if the parameter is repeated."""
        values = self._values.get(name, [])
        return values[0] or None if len(values) == 1 else None

    def all(self, name: str) -> list[str]:
        return [value for value in self._values.get(name, ()) if value]

    def check(self) -> None:
        """Raises `InvalidRequest` if a parameter is repeated, or holds what the database cannot."""
        for name, values in self._values.items():
            if len(values) > 1 and name not in _REPEATABLE:
                raise InvalidRequest("A parameter is repeated")
            if any("\x00" in value for value in (name, *values)):
                raise InvalidRequest("A parameter holds a NUL character")


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """A valid request. `max_age` is in seconds."""

    client: RegisteredClient
    redirect_uri: str
    state: str | None
    scopes: tuple[str, ...]
    resources: tuple[str, ...]
    code_challenge: str
    nonce: str | None
    prompts: frozenset[str]
    max_age: int | None
    login_hint: str | None
    id_token_hint: str | None


def read_request(
    parameters: Parameters, client: RegisteredClient, redirect_uri: str, settings: Settings
) -> AuthorizationRequest:
    """Raises an `OAuthError` whose code goes back to the client."""
    parameters.check()
    for name, error in _UNSUPPORTED.items():
        if parameters.sole(name) is not None:
            raise error
    response_type = parameters.sole("response_type")
    if response_type is None:
        raise InvalidRequest("response_type is missing")
    if response_type != "code":
        raise UnsupportedResponseType
    if parameters.sole("response_mode") not in (None, "query"):
        raise InvalidRequest("response_mode must be query")
    if "authorization_code" not in client.grant_types:
        raise UnauthorizedClient
    challenge = parameters.sole("code_challenge") or ""
    if parameters.sole("code_challenge_method") != "S256" or not _CHALLENGE.fullmatch(challenge):
        raise InvalidRequest("A code_challenge with the method S256 is required")
    nonce = parameters.sole("nonce")
    if len(nonce or "") > _LONGEST_NONCE:
        raise InvalidRequest("nonce is too long")
    default = [scope for scope in client.scopes if scope not in IDENTITY_SCOPES]
    identity = [scope for scope in client.scopes if scope in IDENTITY_SCOPES]
    return AuthorizationRequest(
        client=client,
        redirect_uri=redirect_uri,
        state=parameters.sole("state"),
        scopes=narrow_scope(parameters.sole("scope"), default, identity),
        resources=narrow_resources(parameters.all("resource"), settings.resources, settings.other_resources),
        code_challenge=challenge,
        nonce=nonce,
        prompts=_prompts(parameters.sole("prompt")),
        max_age=_max_age(parameters.sole("max_age")),
        login_hint=parameters.sole("login_hint"),
        id_token_hint=parameters.sole("id_token_hint"),
    )


def _prompts(value: str | None) -> frozenset[str]:
    prompts = frozenset((value or "").split())
    if not prompts <= _PROMPTS:
        raise InvalidRequest("prompt must be none, login or consent")
    if "none" in prompts and len(prompts) > 1:
        raise InvalidRequest("prompt=none stands alone")
    return prompts


def _max_age(value: str | None) -> int | None:
    if value is None:
        return None
    if not _SECONDS.fullmatch(value):
        raise InvalidRequest("max_age must be a number of seconds")
    return int(value)
