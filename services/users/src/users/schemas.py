"""Bodies of HTTP requests and responses."""

from datetime import datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import AfterValidator, Field, SecretStr

from common.security.networks import UNKNOWN_NETWORK, network_of
from common.web import Model, StrictModel
from users.credentials.passwords import MAX_LENGTH, MIN_LENGTH
from users.models import PROFILE_FIELDS, LinkPurpose, ProfileField, Role, Status
from users.profile import MAX_EMAIL, MAX_NAME, email_address, person_name

PersonName = Annotated[str, Field(min_length=1, max_length=MAX_NAME), AfterValidator(person_name)]
EmailAddress = Annotated[
    str, Field(max_length=MAX_EMAIL, json_schema_extra={"format": "email"}), AfterValidator(email_address)
]
Age = Annotated[int, Field(ge=1, le=149, strict=True)]
NewPassword = Annotated[
    SecretStr,
    Field(
        min_length=MIN_LENGTH,
        max_length=MAX_LENGTH,
        description="Any characters, but not white space only. Common passwords are refused, and those made of the "
        "name or e-mail address.",
    ),
]
AnyPassword = Annotated[SecretStr, Field(max_length=1024)]
LinkToken = Annotated[SecretStr, Field(min_length=1, max_length=128)]

_OMITTED: Final[Any] = Field(default_factory=lambda: None)
"""Default of an optional field for which null is not valid or means something else."""


class SignUp(StrictModel):
    name: PersonName
    email: EmailAddress
    password: NewPassword
    age: Age | None = None


class ProfileChange(StrictModel):
    """Fields that are left out keep their value; `age: null` removes the age. `email` needs `current_password`."""

    name: PersonName = _OMITTED
    email: EmailAddress = _OMITTED
    age: Age | None = _OMITTED
    current_password: AnyPassword = _OMITTED

    @property
    def new_email(self) -> str | None:
        return self.email if "email" in self.model_fields_set else None

    def changes(self) -> dict[ProfileField, Any]:
        return {field: getattr(self, field) for field in PROFILE_FIELDS if field in self.model_fields_set}


class PasswordChange(StrictModel):
    current: AnyPassword
    new: NewPassword


class RoleChange(StrictModel):
    role: Role


class PasswordResetRequest(StrictModel):
    email: EmailAddress


class PasswordReset(StrictModel):
    token: LinkToken
    password: NewPassword


class LinkUse(StrictModel):
    token: LinkToken


class TotpConfirmation(StrictModel):
    code: Annotated[str, Field(pattern=r"^[0-9]{6}$", description="The code that the app shows now.")]


class NewTotpOut(Model):
    """For an authenticator app: `secret` is in base32, and `otpauth_uri` is what a QR code holds."""

    secret: str
    otpauth_uri: str


class RecoveryCodes(Model):
    """Each takes the place of the app once. Only this response contains them."""

    recovery_codes: list[str]


class AuthenticatorOut(Model):
    type: Literal["totp"]
    created_at: datetime
    last_used_at: datetime | None


class AuthenticatorList(Model):
    items: list[AuthenticatorOut]
    recovery_codes_left: int


class UserOut(Model):
    """`pending_email` is the address that replaces `email` once the link that was mailed to it is used."""

    id: UUID
    name: str
    email: str
    email_verified: bool
    pending_email: str | None
    role: Role
    status: Status
    age: int | None
    created_at: datetime
    updated_at: datetime


class KnownDevice(StrictModel):
    """A device on which this person has signed in before, as the caller has verified."""

    user_id: UUID
    id: UUID


class Credentials(StrictModel):
    """E-mail address, password and code as they were typed. `network` is the client's address or network, if known.

    On a known `device` of the account, failures elsewhere do not count. `otp` is a code of the authenticator app or a
    recovery code. It is ignored where the account has no second factor.
    """

    email: Annotated[str, Field(max_length=1024)]
    password: AnyPassword
    otp: Annotated[SecretStr, Field(max_length=64)] | None = None
    network: Annotated[str, Field(max_length=64), AfterValidator(network_of)] = UNKNOWN_NETWORK
    device: KnownDevice | None = None


class VerifiedAccount(Model):
    """`version` is that of the account's latest event: a deactivation is later than this check if its version is
    higher. `amr` lists how the person authenticated (RFC 8176).
    """

    user_id: UUID
    role: Role
    status: Status
    version: int
    amr: list[str]
    has_second_factor: bool


class AccountIds(StrictModel):
    user_ids: Annotated[list[UUID], Field(max_length=500)]


class AccountState(Model):
    """`version` is that of the account's latest event."""

    user_id: UUID
    role: Role
    status: Status
    version: int


class AccountStates(Model):
    items: list[AccountState]


class ProfileOut(Model):
    name: str
    email: str
    email_verified: bool


class IssuedLinkOut(Model):
    token: str
    purpose: LinkPurpose
    user_id: UUID
    name: str
    email: str
    expires_at: datetime
