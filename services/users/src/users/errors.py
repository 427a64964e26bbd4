"""The errors that users answers with."""

import math
from typing import ClassVar, Final, Self
from uuid import UUID

from common.errors import BadRequest, Conflict, Forbidden, TooManyRequests, Unauthorized, Unavailable, Unprocessable

ACCOUNT_HEADER: Final = "Waybill-Account"
"""Names the account of a refused sign-in to auth, which keeps people's sign-ins. The body never says whether there is
one."""


class EmailTaken(Conflict):
    code, title = "email_taken", "E-mail address already in use"


class LastAdmin(Conflict):
    """The change would leave no active admin to manage users."""

    code, title = "last_admin", "This is the last active admin"


class WrongPassword(Forbidden):
    code, title = "wrong_password", "The current password is wrong"


class WrongCode(Forbidden):
    code, title = "wrong_code", "The code is wrong"


class AuthenticatorExists(Conflict):
    code, title = "authenticator_exists", "There is an authenticator app already; remove it first"


class WeakPassword(Unprocessable):
    """The password is too short, or among the first that an attacker would try."""

    code, title = "weak_password", "Password too easy to guess"

    def __init__(self, detail: str, *, code: str, field: str) -> None:
        super().__init__(detail, errors=[{"loc": ["body", field], "msg": detail, "code": code}])


class InvalidCredentials(Unauthorized):
    """Unknown account, wrong password or code, or deactivated account: the response must not reveal which."""

    code, title = "invalid_credentials", "E-mail address, password or code not accepted"

    def __init__(self, user_id: UUID | None) -> None:
        """`user_id` is that of the account with the address, if there is one. The internal API says it to auth."""
        account = {} if user_id is None else {ACCOUNT_HEADER: str(user_id)}
        super().__init__(headers={"WWW-Authenticate": "Bearer"} | account)


class MfaRequired(InvalidCredentials):
    """The password is right, and the code of the second factor is missing."""

    code, title = "mfa_required", "A code of the second factor is required"


class _TryLater(TooManyRequests):
    def __init__(self, retry_after: float) -> None:
        """`retry_after` is in seconds."""
        super().__init__(headers={"Retry-After": str(max(1, math.ceil(retry_after)))})


class TooManyAttempts(_TryLater):
    code, title = "too_many_attempts", "Too many failed attempts"

    def of(self, user_id: UUID) -> Self:
        """Names the account, for auth."""
        self.headers[ACCOUNT_HEADER] = str(user_id)
        return self


class TooManyAddresses(_TryLater):
    """For sign-ups, changes of an address and requests for a mail. Successful ones count too: those of the first two
    answer whether an address is taken.
    """

    code, title = "too_many_addresses", "Too many e-mail addresses tried from your network"


class AddressChangedTooOften(_TryLater):
    """Accounts have left this address several times within the hour, and each time a mail went to it."""

    code, title = "address_changed_too_often", "E-mail address changed too often"


class InvalidLink(BadRequest):
    """The link's secret is unknown, used, expired, or void since a later change of the account."""

    code, title = "invalid_link", "This link is invalid or has expired"


class HashingBusy(Unavailable):
    """More passwords are waiting to be hashed or checked than can be within a reasonable time."""

    code: ClassVar[str] = "too_busy"

    def __init__(self) -> None:
        super().__init__("Too many passwords to check at once.", headers={"Retry-After": "1"})
