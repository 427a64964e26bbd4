"""Lets users verify a password over HTTP. Auth never sees a password hash, and users never sees a session."""

import contextlib
from typing import Final

from pydantic import TypeAdapter, ValidationError

from auth.errors import InvalidGrant, TemporarilyUnavailable, Throttled
from auth.sessions.handlers import VerifiedPerson
from common.errors import Unavailable
from common.security.service_client import ServiceClient

_PATH: Final = "/internal/credentials/verify"
_LONGEST_NAME: Final = 320
_LONGEST_PASSWORD: Final = 1024
_WRONG: Final = "The e-mail address or the password is wrong"
_VERIFIED: Final = TypeAdapter(VerifiedPerson)


async def verify_credentials(users: ServiceClient, username: str, password: str, network: str) -> VerifiedPerson:
    """The person with this e-mail address (`username`) and password.

    Raises `InvalidGrant`, the same one for an unknown account, a wrong password and a disabled account; `Throttled`;
    `TemporarilyUnavailable`. Users counts failed attempts per `network`, the client's address.
    """
    if len(username) > _LONGEST_NAME or len(password) > _LONGEST_PASSWORD:
        raise InvalidGrant(_WRONG)
    try:
        answer = await users.post(_PATH, json={"email": username, "password": password, "network": network})
    except Unavailable as error:
        raise TemporarilyUnavailable(headers=error.headers or {"Retry-After": "2"}) from error
    if answer.status_code == 429:
        raise Throttled(headers={"Retry-After": answer.headers.get("Retry-After", "5")})
    if answer.status_code in (401, 422):
        raise InvalidGrant(_WRONG)
    if answer.status_code == 200:
        with contextlib.suppress(ValidationError):
            return _VERIFIED.validate_json(answer.content)
    raise TemporarilyUnavailable(headers={"Retry-After": "5"})
