"""Lets users verify credentials over HTTP. Auth never sees a password hash, and users never sees a session."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal
from uuid import UUID

import httpx
from prometheus_client import Counter
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from auth.errors import InvalidGrant, MfaRequired, OAuthError, TemporarilyUnavailable, Throttled
from auth.models import ADMIN
from auth.sessions.handlers import VerifiedPerson
from auth.sign_in_models import NOBODY
from auth.tokens.device import KnownDevice
from common.errors import Unavailable
from common.observability.log_limit import limited_logger
from common.security.log_digests import LogDigests
from common.security.networks import network_of
from common.security.service_client import ServiceClient

log = limited_logger(__name__)

SIGN_INS: Final = Counter("waybill_sign_ins_total", "Checks of a person's password by outcome.", ["outcome"])
for _outcome in ("succeeded", "wrong", "code_missing", "throttled", "unavailable"):
    SIGN_INS.labels(_outcome)  # exported as 0 from the start, so that the first one is an increase


@dataclass(frozen=True, slots=True)
class Profile:
    name: str
    email: str
    email_verified: bool


_PATH: Final = "/internal/credentials/verify"
_ACCOUNT_HEADER: Final = "Waybill-Account"
_LONGEST_NAME: Final = 320
_LONGEST_PASSWORD: Final = 1024
_LONGEST_CODE: Final = 64
_WRONG: Final = "The e-mail address, the password or the code is wrong"
_VERIFIED: Final = TypeAdapter(VerifiedPerson)
_PROFILE: Final = TypeAdapter(Profile)


class Account(BaseModel):
    """What users knows of a person. `version` is that of users' aggregate."""

    model_config = ConfigDict(frozen=True)

    user_id: UUID
    role: str
    status: Literal["active", "deactivated"]
    version: int


_ACCOUNTS: Final = TypeAdapter(list[Account])


async def verify_credentials(
    users: ServiceClient,
    username: str,
    password: str,
    network: str,
    *,
    otp: str | None = None,
    device: KnownDevice | None = None,
    digests: LogDigests,
) -> VerifiedPerson:
    """The person with this e-mail address (`username`), password and, where the account has a second factor, code.

    Raises `InvalidGrant`, the same one for an unknown account, a wrong password or code, and a disabled account;
    `MfaRequired` for a right password without the code; `Throttled`; `TemporarilyUnavailable`. Users counts failed
    attempts per `network`, the client's address, or for a known `device` of the account alone. The log names accounts
    and networks by their `digests`.
    """
    try:
        person = await _verify(users, username, password, network, otp=otp, device=device)
    except OAuthError as error:
        outcome = outcome_of(error)
        SIGN_INS.labels(outcome).inc()
        account, source = digests.of(username.lower()), digests.of(network_of(network))
        log.info("sign-in refused", outcome=outcome, account=account, network=source)
        raise
    SIGN_INS.labels("succeeded").inc()
    if person.role == ADMIN and not person.has_second_factor:
        log.warning("administrator without a second factor", user_id=str(person.user_id))
    return person


async def fetch_profile(users: ServiceClient, user_id: UUID) -> Profile | None:
    """None for an account that is deactivated or does not exist. Raises `Unavailable`."""
    answer = await users.get(f"/internal/users/{user_id}/profile")
    if answer.status_code == 404:
        return None
    with contextlib.suppress(ValidationError):
        return _PROFILE.validate_json(answer.content)
    raise Unavailable


async def accounts(users: ServiceClient, user_ids: Sequence[UUID]) -> list[Account]:
    """Those of these people whom users has. Raises `Unavailable`."""
    answer = await users.post("/internal/accounts", json={"user_ids": [str(user_id) for user_id in user_ids]})
    if answer.status_code != 200:
        raise Unavailable(f"users answers {answer.status_code}")
    return _ACCOUNTS.validate_python(answer.json()["items"])


def outcome_of(error: OAuthError) -> Literal["wrong", "code_missing", "throttled", "unavailable"]:
    if isinstance(error, InvalidGrant):
        return "wrong"
    if isinstance(error, MfaRequired):
        return "code_missing"
    return "throttled" if isinstance(error, Throttled) else "unavailable"


async def _verify(
    users: ServiceClient, username: str, password: str, network: str, *, otp: str | None, device: KnownDevice | None
) -> VerifiedPerson:
    if len(username) > _LONGEST_NAME or len(password) > _LONGEST_PASSWORD or len(otp or "") > _LONGEST_CODE:
        raise InvalidGrant(_WRONG)
    body: dict[str, Any] = {"email": username, "password": password, "network": network}
    # Left out otherwise, because an older release of users refuses unknown fields.
    if otp is not None:
        body["otp"] = otp
    if device is not None:
        body["device"] = {"user_id": str(device.user_id), "id": str(device.id)}
    try:
        answer = await users.post(_PATH, json=body)
    except Unavailable as error:
        raise TemporarilyUnavailable(headers=error.headers or {"Retry-After": "2"}) from error
    if answer.status_code == 200:
        with contextlib.suppress(ValidationError):
            return _VERIFIED.validate_json(answer.content)
    raise _refusal(answer)


def _refusal(answer: httpx.Response) -> OAuthError:
    if answer.status_code == 429:
        refusal: OAuthError = Throttled(headers={"Retry-After": answer.headers.get("Retry-After", "5")})
    elif answer.status_code in (401, 422):
        refusal = MfaRequired() if _code_of(answer) == "mfa_required" else InvalidGrant(_WRONG)
    else:
        return TemporarilyUnavailable(headers={"Retry-After": "5"})
    refusal.account = NOBODY
    with contextlib.suppress(ValueError):
        refusal.account = UUID(answer.headers.get(_ACCOUNT_HEADER, ""))
    return refusal


def _code_of(answer: httpx.Response) -> str | None:
    """The `code` of a problem, if there is one."""
    with contextlib.suppress(ValueError, LookupError, TypeError):
        return str(answer.json()["code"])
    return None
