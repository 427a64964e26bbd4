"""The events that users publishes.

A change may only add optional fields; any other change needs a new event type. Docstrings are published in
`contracts/`: write them for consumers.
"""

from typing import ClassVar, Literal
from uuid import UUID

from common.messaging.cloudevents import Event
from users.models import LinkPurpose, Role


class UserRegistered(Event):
    """Someone signed up. Send a welcome mail only if `send_welcome` is true."""

    type: ClassVar[str] = "users.user.registered.v1"

    user_id: UUID
    name: str
    email: str
    role: Role
    send_welcome: bool


class UserUpdated(Event):
    """The profile changed. `name` and `email` are the current values; `changed` lists the fields whose value differs.

    A new e-mail address is not verified, unless `users.user.email_verified.v1` follows. A change of address takes
    effect, and is this event, when the person uses the link that was mailed to the new one.
    """

    type: ClassVar[str] = "users.user.updated.v1"

    user_id: UUID
    name: str
    email: str
    changed: list[Literal["name", "email", "age"]]


class UserRoleChanged(Event):
    """`role` is the new role."""

    type: ClassVar[str] = "users.user.role_changed.v1"

    user_id: UUID
    role: Role


class UserEmailVerified(Event):
    """The person proved that they receive mail at the account's e-mail address."""

    type: ClassVar[str] = "users.user.email_verified.v1"

    user_id: UUID


class UserPasswordChanged(Event):
    """The password was changed or reset. All sessions end except `except_session_id`, the one in which the person
    changed it; if it is null, all end.

    `by` is `change` where the person knew the password before, and `reset` where they used a link in a mail: somebody
    else may have used the account until then. Events of earlier releases have null.
    """

    type: ClassVar[str] = "users.user.password_changed.v1"

    user_id: UUID
    except_session_id: str | None = None
    by: Literal["change", "reset"] | None = None


class UserEmailReverted(Event):
    """The person took back the e-mail address that the account had before a change, with the link that was mailed to
    it: somebody else may have used the account until then. All sessions end. `email` is the address now.

    If the change had taken effect, `users.user.updated.v1` comes before this event.
    """

    type: ClassVar[str] = "users.user.email_reverted.v1"

    user_id: UUID
    email: str


class UserAuthenticatorChanged(Event):
    """The account's second factor was added or removed, or one of its recovery codes was used to sign in."""

    type: ClassVar[str] = "users.user.authenticator_changed.v1"

    user_id: UUID
    change: Literal["added", "removed", "recovery_code_used"]


class UserDeactivated(Event):
    """The person can no longer sign in, and all their sessions end."""

    type: ClassVar[str] = "users.user.deactivated.v1"

    user_id: UUID


class UserReactivated(Event):
    """The person can sign in again."""

    type: ClassVar[str] = "users.user.reactivated.v1"

    user_id: UUID


class UserErased(Event):
    """The account was deleted. A consumer must delete every copy of its personal data that it keeps."""

    type: ClassVar[str] = "users.user.erased.v1"

    user_id: UUID


class SecretLinkRequested(Event):
    """A mail with a one-time link must be sent. The service that writes the mail gets the link's secret and the address
    from users, by `link_id`, so that no event holds them.

    `verify_email`, `reset_password`: for the account's address. `confirm_email`: for a new address, which replaces it
    once the link is used. `revert_email`: for the address before such a change, at once, to take it back.
    """

    type: ClassVar[str] = "users.secret_link.requested.v1"

    link_id: UUID
    user_id: UUID
    purpose: LinkPurpose


class AuditRecorded(Event):
    """An administrator or operator did something. `actor` is a user's id, or `operator:` and the login name of whoever
    ran a command. `action` says what, such as `user.role_changed`, and `subject` is the id of what it was done to.
    `request_id` is that of the request, null for a command.
    """

    type: ClassVar[str] = "users.audit.recorded.v1"

    actor: str
    action: str
    subject: str
    detail: str | None = None
    request_id: str | None = None
