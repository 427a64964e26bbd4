"""Auth's tables and the rules their rows obey."""

import enum
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import CheckConstraint, ForeignKey, Index, MetaData, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from auth.errors import InvalidRegistration
from auth.tokens import refresh
from auth.tokens.refresh import RefreshToken
from common.db.database import COLUMN_TYPES, NAMING


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = COLUMN_TYPES


class KeyStatus(enum.StrEnum):
    PENDING = "pending"
    """Published, but not signing yet."""
    ACTIVE = "active"
    RETIRING = "retiring"
    """Published until the last token it signed has expired. Its private part is deleted."""


class SigningKey(Base):
    """A key pair that signs access tokens. `sealed` is the encrypted private part (see `auth.keys.keypairs`)."""

    __tablename__ = "signing_keys"

    kid: Mapped[str] = mapped_column(primary_key=True)
    alg: Mapped[str]
    status: Mapped[str]
    jwk: Mapped[dict[str, Any]]
    sealed: Mapped[bytes | None]
    kek_id: Mapped[str | None]
    """Names the key encryption key that sealed the private part."""
    created_at: Mapped[datetime]
    changes_at: Mapped[datetime]
    """When this status ends: a pending key becomes active, an active one is replaced, a retiring one is deleted."""
    version: Mapped[int]

    __table_args__ = (
        CheckConstraint("status IN ('pending', 'active', 'retiring')", name="status"),
        CheckConstraint("alg IN ('ES256', 'RS256')", name="alg"),
        CheckConstraint("(status = 'retiring') = (sealed IS NULL)", name="private_part"),
        CheckConstraint("(sealed IS NULL) = (kek_id IS NULL)", name="kek_id"),
        Index("uq_signing_keys_active", "status", unique=True, postgresql_where=text("status = 'active'")),
    )

    def activate(self, until: datetime) -> None:
        self.status, self.changes_at = KeyStatus.ACTIVE, until
        self.version += 1

    def retire(self, until: datetime) -> None:
        self.status, self.changes_at = KeyStatus.RETIRING, until
        self.sealed = self.kek_id = None
        self.version += 1


class Client(Base):
    """An OAuth client managed by administrators. A deleted client's row stays until its last token has expired."""

    __tablename__ = "clients"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    grant_types: Mapped[list[str]]
    scopes: Mapped[list[str]]
    secret_hash: Mapped[bytes]
    """A public client, and one with keys, has the hash of no secret: an older release then refuses it."""
    jwks: Mapped[dict[str, Any] | None]
    """The public keys with which the client signs assertions (RFC 7523), instead of a secret."""
    previous_secret_hash: Mapped[bytes | None]
    previous_secret_until: Mapped[datetime | None]
    is_public: Mapped[bool] = mapped_column("public", default=False, server_default=text("false"))
    redirect_uris: Mapped[list[str]] = mapped_column(default=list, server_default=text("'{}'"))
    post_logout_redirect_uris: Mapped[list[str]] = mapped_column(default=list, server_default=text("'{}'"))
    created_at: Mapped[datetime]
    session_version: Mapped[int] = mapped_column(default=1)
    """Tokens with a lower `sv` are void. Raised when the secret changes and when the client is deleted."""
    version: Mapped[int] = mapped_column(default=0)
    revoked_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("length(secret_hash) = 32", name="secret_hash"),
        CheckConstraint("session_version >= 1", name="session_version"),
        CheckConstraint("(previous_secret_hash IS NULL) = (previous_secret_until IS NULL)", name="previous_secret"),
        Index(None, "created_at", "id", postgresql_where=text("deleted_at IS NULL")),
    )

    def check_grant_types(self) -> None:
        """Raises `InvalidRegistration`."""
        if "authorization_code" in self.grant_types and not self.redirect_uris:
            raise InvalidRegistration("The grant type authorization_code needs redirect_uris.")
        if self.is_public and "client_credentials" in self.grant_types:
            raise InvalidRegistration("A public client has no secret, so it cannot have client_credentials.")
        if self.is_public and self.jwks is not None:
            raise InvalidRegistration("A client with keys is not public.")

    def valid_secret_hashes(self, now: datetime) -> list[bytes]:
        """One, or two while a replaced secret is still good."""
        hashes = [self.secret_hash]
        if self.previous_secret_hash is not None and self.previous_secret_until and now < self.previous_secret_until:
            hashes.append(self.previous_secret_hash)
        return hashes


ADMIN: Final = "admin"
"""The role of administrators, as users names it."""


class SubjectStatus(enum.StrEnum):
    ACTIVE = "active"
    DEACTIVATED = "deactivated"
    ERASED = "erased"


class Subject(Base):
    """A person as auth knows them from users' events and responses, kept even without a session.

    `version` is the version of users' aggregate. `session_version` is auth's own: each token carries it as `sv`. Tokens
    with an `sv` below `min_session_version` are void. For the excepted session the limit is the lower
    `excepted_session_version`.
    """

    __tablename__ = "subjects"

    user_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    version: Mapped[int]
    status: Mapped[str]
    role: Mapped[str]
    session_version: Mapped[int] = mapped_column(default=1)
    min_session_version: Mapped[int] = mapped_column(default=1)
    excepted_session_id: Mapped[uuid.UUID | None] = mapped_column("spared_session_id")
    excepted_session_version: Mapped[int | None] = mapped_column("spared_session_version")
    revoked_at: Mapped[datetime | None]
    event_version: Mapped[int] = mapped_column(default=0)
    """Version of the last `auth.subject.revoked` event about this person."""
    first_sign_in_at: Mapped[datetime | None]
    """None: never, or last before sign-ins were kept."""

    __table_args__ = (
        CheckConstraint("status IN ('active', 'deactivated', 'erased')", name="status"),
        CheckConstraint("1 <= min_session_version AND min_session_version <= session_version", name="session_version"),
        CheckConstraint("(spared_session_id IS NULL) = (spared_session_version IS NULL)", name="spared"),
        Index(None, "revoked_at", postgresql_where=text("revoked_at IS NOT NULL")),
    )

    def update_to(self, version: int, *, status: str | None = None, role: str | None = None) -> bool:
        """Applies what users reported as of `version`. Returns False, and changes nothing, if a later version is known.

        A higher version starts a new session version, because its event may still arrive and revoke: tokens issued
        from now on must survive that.
        """
        if version < self.version:
            return False
        self.status = status or self.status
        self.role = role or self.role
        if version > self.version:
            self.version = version
            self.session_version += 1
        return True

    def go_back_to(self, version: int, *, status: str, role: str) -> None:
        """The reverse of `update_to`, to a version that users reports, for one that it does not have."""
        self.version, self.status, self.role = version, status, role
        self.session_version += 1

    def revoke_tokens(self, now: datetime, *, except_session: uuid.UUID | None = None) -> None:
        """Voids all tokens of earlier session versions. Tokens of the excepted session stay valid unless they were
        void before.
        """
        was_excepted = except_session is not None and except_session == self.excepted_session_id
        lowest_valid = self.excepted_session_version if was_excepted else self.min_session_version
        self.excepted_session_id = except_session
        self.excepted_session_version = None if except_session is None else lowest_valid
        self.min_session_version = self.session_version
        self.revoked_at = now
        self.event_version += 1


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """How long a session lives unused (`idle`) and at most (`absolute`).

    `retry` is how long after a refresh the same refresh may be repeated, by a client that lost the response.
    """

    idle: timedelta
    absolute: timedelta
    retry: timedelta


class Session(Base):
    """A person signed in with a client: one family of refresh tokens (RFC 9700 §4.14.2), each replacing the one before.

    Code that also holds a database session calls this one `family`.
    """

    __tablename__ = "sessions"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("subjects.user_id"))
    client_id: Mapped[str]
    scopes: Mapped[list[str]]
    resources: Mapped[list[str]]
    device: Mapped[str]
    amr: Mapped[list[str]] = mapped_column(default=lambda: ["pwd"], server_default=text("'{pwd}'"))
    """How the person authenticated (RFC 8176)."""
    browser_session_id: Mapped[uuid.UUID | None]
    """The browser session in which the client was authorized. They end together."""
    created_at: Mapped[datetime]
    authenticated_at: Mapped[datetime | None]
    """When the person authenticated, which a refresh does not change. None: at `created_at`, by an older release."""
    last_used_at: Mapped[datetime]
    idle_until: Mapped[datetime]
    ends_at: Mapped[datetime]
    subject_version: Mapped[int]
    """Users' version of the person when the password was verified."""
    generation: Mapped[int] = mapped_column("place", default=1)
    """Number of the newest refresh token, from 1."""
    nonce: Mapped[bytes]
    token_hash: Mapped[bytes]
    parent_hash: Mapped[bytes | None]
    """SHA-256 of the token that the newest one replaced."""
    rotated_at: Mapped[datetime | None]
    version: Mapped[int] = mapped_column(default=1)
    revoked_at: Mapped[datetime | None]
    revoke_reason: Mapped[str | None]

    __table_args__ = (
        CheckConstraint("length(token_hash) = 32", name="token_hash"),
        CheckConstraint("place >= 1", name="place"),
        CheckConstraint("(place = 1) = (parent_hash IS NULL)", name="parent_hash"),
        CheckConstraint("(parent_hash IS NULL) = (rotated_at IS NULL)", name="rotated_at"),
        CheckConstraint("(revoked_at IS NULL) = (revoke_reason IS NULL)", name="revoked"),
        CheckConstraint("idle_until <= ends_at", name="idle_until"),
        Index(None, "user_id", "created_at", "id", postgresql_where=text("revoked_at IS NULL")),
        Index(None, "revoked_at", postgresql_where=text("revoked_at IS NOT NULL")),
        Index(None, "idle_until", postgresql_where=text("revoked_at IS NULL")),
    )

    @property
    def auth_time(self) -> datetime:
        return self.authenticated_at or self.created_at

    def is_live(self, now: datetime) -> bool:
        return self.revoked_at is None and now < self.idle_until

    def begin(self, secret: bytes, now: datetime, limits: SessionLimits) -> RefreshToken:
        """Sets the session's times and returns its first refresh token."""
        self.created_at = self.last_used_at = now
        self.authenticated_at = self.authenticated_at or now
        self.ends_at = now + limits.absolute
        self.idle_until = min(now + limits.idle, self.ends_at)
        self.nonce = refresh.new_nonce()
        first = refresh.derive(secret, self.id, 1, self.nonce)
        self.token_hash = first.digest
        return first

    def rotate(
        self, token: RefreshToken, secret: bytes, now: datetime, limits: SessionLimits
    ) -> "RefreshToken | Reuse | None":
        """Exchanges a presented token for its successor.

        The newest token gets a new successor. Its parent gets the newest token again, for `limits.retry`. Any other
        token of this session returns `Reuse`, and a token that was never issued returns None.
        """
        if token.digest == self.token_hash:
            child = refresh.derive(secret, self.id, self.generation + 1, self.nonce)
            self.parent_hash, self.token_hash = self.token_hash, child.digest
            self.generation += 1
            self.rotated_at = self.last_used_at = now
            self.idle_until = min(now + limits.idle, self.ends_at)
            return child
        if token.digest == self.parent_hash and self.rotated_at and now < self.rotated_at + limits.retry:
            newest = refresh.derive(secret, self.id, self.generation, self.nonce)
            # If the secret has changed since the rotation, the newest token can no longer be derived.
            return newest if newest.digest == self.token_hash else None
        return Reuse() if self.has_issued(token, secret) else None

    def has_issued(self, token: RefreshToken, secret: bytes) -> bool:
        """Whether the token is one of this session's, used or not."""
        return token.digest in (self.token_hash, self.parent_hash) or token.is_authentic(secret, self.nonce)

    def revoke(self, reason: str, now: datetime) -> None:
        self.revoked_at, self.revoke_reason = now, reason
        self.version += 1


class Reuse:
    """A used refresh token was presented again, so it may have been stolen (RFC 9700 §4.14.2)."""
