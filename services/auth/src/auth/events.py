"""The events auth publishes. They never contain a token, a secret or an e-mail address."""

from typing import ClassVar, Literal
from uuid import UUID

from auth.models import KeyStatus
from common.messaging.cloudevents import Event

Reason = Literal[
    "logout",
    "logout_everywhere",
    "ended_by_admin",
    "token_revoked",
    "token_reuse",
    "deactivated",
    "erased",
    "password_changed",
    "email_reverted",
    "role_changed",
    "client_secret_changed",
    "client_deleted",
    "code_reuse",
    "consent_withdrawn",
]


class SessionStarted(Event):
    """Someone signed in. `device` is the browser or app, as it describes itself. `is_new_device` is true if the person
    has signed in before, but not with this device in this network within 90 days.
    """

    type: ClassVar[str] = "auth.session.started.v1"

    session_id: UUID
    user_id: UUID
    client_id: str
    is_new_device: bool | None = None
    device: str | None = None


class SessionRevoked(Event):
    """All tokens with this `sid` are void. `user_id` is null if the `sid` is that of a client's own token."""

    type: ClassVar[str] = "auth.session.revoked.v1"

    session_id: UUID
    user_id: UUID | None = None
    client_id: str
    reason: Reason


class SubjectRevoked(Event):
    """Tokens of this `sub` with an `sv` below `min_session_version` are void. For the excepted session the limit is the
    lower `except_session_version`. If `sessions_ended` is false, the sessions continue with new tokens.
    """

    type: ClassVar[str] = "auth.subject.revoked.v1"

    subject: str
    user_id: UUID | None = None
    min_session_version: int
    except_session_id: UUID | None = None
    except_session_version: int | None = None
    sessions_ended: bool
    reason: Reason


class TokenReuseDetected(Event):
    """A used refresh token was presented again. It may have been stolen, so the session was revoked."""

    type: ClassVar[str] = "auth.token_reuse.detected.v1"

    session_id: UUID
    user_id: UUID
    client_id: str


class KeysChanged(Event):
    """A signing key was published, started or stopped signing, or was deleted. Verifiers fetch the key set again."""

    type: ClassVar[str] = "auth.keys.changed.v1"

    kid: str
    status: KeyStatus | Literal["gone"]


class AuditRecorded(Event):
    """An administrator or operator did something. `actor` is a user's id, or `operator:` and the login name of whoever
    ran a command. `action` says what, such as `client.registered`, and `subject` is the id of what it was done to.
    `request_id` is that of the request, null for a command.
    """

    type: ClassVar[str] = "auth.audit.recorded.v1"

    actor: str
    action: str
    subject: str
    detail: str | None = None
    request_id: str | None = None
