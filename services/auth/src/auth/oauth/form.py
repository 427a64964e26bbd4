"""Parses requests to the OAuth endpoints: the form, and the client's credentials (RFC 6749 §2.3.1)."""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, unquote_plus

from auth.errors import InvalidClient, InvalidRequest

FORM_TYPE: Final = "application/x-www-form-urlencoded"
_REPEATABLE: Final = frozenset({"resource"})  # RFC 8707 §2
_MOST_FIELDS: Final = 30
ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


class Form:
    """The parameters of one request. A parameter without a value is treated as omitted (RFC 6749 §3.2)."""

    def __init__(self, content_type: str, body: bytes) -> None:
        """Raises `InvalidRequest` for any other content type, malformed encoding, or a repeated parameter."""
        if content_type.partition(";")[0].strip().lower() != FORM_TYPE:
            raise InvalidRequest(f"The body must be {FORM_TYPE}")
        try:
            pairs = parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
        except ValueError:
            raise InvalidRequest("The form is malformed") from None
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            if name in self._values and name not in _REPEATABLE:
                raise InvalidRequest("A parameter is repeated")
            if "\x00" in value:
                raise InvalidRequest("A parameter holds a NUL character")
            self._values.setdefault(name, []).append(value)

    def get(self, name: str) -> str | None:
        return next(iter(self._values.get(name, ())), "") or None

    def all(self, name: str) -> list[str]:
        return [value for value in self._values.get(name, ()) if value]

    def require(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise InvalidRequest(f"{name} is missing")
        return value


@dataclass(frozen=True, slots=True)
class ClientCredentials:
    """A client's id and secret, or its assertion (RFC 7523), which names the client. A public client has neither."""

    client_id: str
    secret: str | None = None
    assertion: str | None = None


def client_credentials(form: Form, authorization: Sequence[str]) -> ClientCredentials | None:
    """The credentials from the `Authorization` header or the form; None if there are none.

    Raises `InvalidRequest` if there are several, `InvalidClient` if they are malformed.
    """
    if len(authorization) > 1:
        raise InvalidRequest("More than one Authorization header")
    in_header = _basic(authorization[0]) if authorization else None
    client_id, secret = form.get("client_id"), form.get("client_secret")
    assertion, assertion_type = form.get("client_assertion"), form.get("client_assertion_type")
    if assertion is not None or assertion_type is not None:
        if in_header is not None or secret is not None:
            raise InvalidRequest("Use one method of client authentication, not several")
        if assertion is None or assertion_type != ASSERTION_TYPE:
            raise InvalidRequest(f"client_assertion needs the client_assertion_type {ASSERTION_TYPE}")
        return ClientCredentials(client_id or "", assertion=assertion)
    if in_header is None:
        if client_id is None and secret is not None:
            raise InvalidRequest("client_id is missing")
        return None if client_id is None else ClientCredentials(client_id, secret)
    if secret is not None or client_id not in (None, in_header.client_id):
        raise InvalidRequest("Use one method of client authentication, not several")
    return in_header


def _basic(header: str) -> ClientCredentials | None:
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        raise InvalidClient("Clients authenticate with Basic credentials or in the form")
    try:
        client_id, colon, secret = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
        client_id, secret = unquote_plus(client_id, errors="strict"), unquote_plus(secret, errors="strict")
    except (binascii.Error, ValueError):
        raise InvalidClient("The Basic credentials are malformed") from None
    if not colon or "\x00" in client_id + secret:
        raise InvalidClient("The Basic credentials are malformed")
    if not client_id and not secret:
        return None  # ":", which Swagger UI sends when its client fields are left empty
    return ClientCredentials(client_id, secret or None)
