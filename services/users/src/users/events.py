"""The events that users publishes. Fields are only ever added, and as optional; anything else is a new version."""

from typing import ClassVar, Literal
from uuid import UUID

from common.messaging.cloudevents import Event
from users.models import LinkPurpose, Role


class UserRegistered(Event):
    type: ClassVar[str] = "users.user.registered.v1"

    user_id: UUID
    name: str
    email: str
    role: Role
    send_welcome: bool


class UserUpdated(Event):
    """`name` and `email` as they are now; `changed` names what is different, `age` included."""

    type: ClassVar[str] = "users.user.updated.v1"

    user_id: UUID
    name: str
    email: str
    changed: list[Literal["name", "email", "age"]]


class UserRoleChanged(Event):
    type: ClassVar[str] = "users.user.role_changed.v1"

    user_id: UUID
    role: Role


class UserEmailVerified(Event):
    type: ClassVar[str] = "users.user.email_verified.v1"

    user_id: UUID


class UserPasswordChanged(Event):
    """All sessions end but `except_session_id`, the one that the person changed the password in."""

    type: ClassVar[str] = "users.user.password_changed.v1"

    user_id: UUID
    except_session_id: str | None = None


class UserDeactivated(Event):
    type: ClassVar[str] = "users.user.deactivated.v1"

    user_id: UUID


class UserReactivated(Event):
    type: ClassVar[str] = "users.user.reactivated.v1"

    user_id: UUID


class UserErased(Event):
    """The account is gone, and with it every copy of its personal data that a consumer keeps."""

    type: ClassVar[str] = "users.user.erased.v1"

    user_id: UUID


class SecretLinkRequested(Event):
    """Somebody is to be mailed a one-time link; whoever writes the mail has it made at users by `link_id`."""

    type: ClassVar[str] = "users.secret_link.requested.v1"

    link_id: UUID
    user_id: UUID
    purpose: LinkPurpose
