"""Refusals of users."""

from typing import ClassVar

from common.errors import BadRequest, Conflict, Forbidden, TooManyRequests, Unauthorized, Unavailable, Unprocessable


class EmailTaken(Conflict):
    code, title = "email_taken", "E-mail address already in use"


class LastAdmin(Conflict):
    """The change would leave nobody who can manage users."""

    code, title = "last_admin", "This is the last active admin"


class WrongPassword(Forbidden):
    code, title = "wrong_password", "The current password is wrong"


class WeakPassword(Unprocessable):
    """The password is long enough, yet among the first that somebody would guess."""

    code, title = "weak_password", "Password too easy to guess"

    def __init__(self, detail: str, *, code: str, field: str) -> None:
        super().__init__(detail, errors=[{"loc": ["body", field], "msg": detail, "code": code}])


class InvalidCredentials(Unauthorized):
    """Unknown account, wrong password and deactivated account alike: the answer must not tell which."""

    code, title = "invalid_credentials", "E-mail address or password not accepted"

    def __init__(self) -> None:
        super().__init__(headers={"WWW-Authenticate": "Bearer"})


class TooManyAttempts(TooManyRequests):
    """`retry_after` is in seconds."""

    code, title = "too_many_attempts", "Too many failed attempts"

    def __init__(self, retry_after: int) -> None:
        super().__init__(headers={"Retry-After": str(retry_after)})
        self.retry_after: int = retry_after


class AddressChangedTooOften(TooManyRequests):
    """Accounts have left this address several times within the hour, and each time it was mailed so.

    `retry_after` is in seconds.
    """

    code, title = "address_changed_too_often", "E-mail address changed too often"

    def __init__(self, retry_after: int) -> None:
        super().__init__(headers={"Retry-After": str(retry_after)})


class InvalidLink(BadRequest):
    """The link's secret is unknown, used, expired, or was made void by a later change of the account."""

    code, title = "invalid_link", "This link is not valid (any more)"


class HashingBusy(Unavailable):
    """More passwords wait to be checked than can be in reasonable time."""

    code: ClassVar[str] = "too_busy"

    def __init__(self) -> None:
        super().__init__("Too many sign-ins at once.", headers={"Retry-After": "1"})
