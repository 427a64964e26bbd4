"""Auth's tables, and the rules on their rows."""

import enum
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import CheckConstraint, DateTime, ForeignKey, Index, LargeBinary, MetaData, Text, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from auth.tokens import refresh
from auth.tokens.refresh import PresentedToken
from common.db.database import NAMING


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own declaration
        str: Text,
        bytes: LargeBinary,
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
        list[str]: ARRAY(Text),
    }


class KeyStatus(enum.StrEnum):
    PENDING = "pending"
    """Published, not signing yet."""
    ACTIVE = "active"
    RETIRING = "retiring"
    """Still published for the tokens it signed; its private part is gone."""


class SigningKey(Base):
    """A key pair of the issuer. The private part is encrypted (see `auth.keys.keypairs`)."""

    __tablename__ = "signing_keys"

    kid: Mapped[str] = mapped_column(primary_key=True)
    alg: Mapped[str]
    status: Mapped[str]
    jwk: Mapped[dict[str, Any]]
    sealed: Mapped[bytes | None]
    kek_id: Mapped[str | None]
    created_at: Mapped[datetime]
    changes_at: Mapped[datetime]
    """When the next status is due: becoming active, being replaced, being gone."""
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
    """An OAuth client that administrators manage. Deleted ones stay while tokens of theirs may live."""

    __tablename__ = "clients"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    grant_types: Mapped[list[str]]
    scopes: Mapped[list[str]]
    secret_hash: Mapped[bytes]
    created_at: Mapped[datetime]
    session_version: Mapped[int] = mapped_column(default=1)
    """Tokens below it are void: raised when the secret changes and when the client goes."""
    version: Mapped[int] = mapped_column(default=0)
    revoked_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("length(secret_hash) = 32", name="secret_hash"),
        CheckConstraint("session_version >= 1", name="session_version"),
        Index(None, "created_at", "id", postgresql_where=text("deleted_at IS NULL")),
    )


class SubjectStatus(enum.StrEnum):
    ACTIVE = "active"
    DEACTIVATED = "deactivated"
    ERASED = "erased"


class Subject(Base):
    """What auth knows of a person from users' events and answers, kept even for those with no session.

    `version` is that of users' aggregate. `session_version` is auth's own: each token carries it (`sv`), and tokens
    below `min_session_version` are void; those of the spared session only below `spared_session_version`.
    """

    __tablename__ = "subjects"

    user_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    version: Mapped[int]
    status: Mapped[str]
    role: Mapped[str]
    session_version: Mapped[int] = mapped_column(default=1)
    min_session_version: Mapped[int] = mapped_column(default=1)
    spared_session_id: Mapped[uuid.UUID | None]
    spared_session_version: Mapped[int | None]
    revoked_at: Mapped[datetime | None]
    event_version: Mapped[int] = mapped_column(default=0)

    __table_args__ = (
        CheckConstraint("status IN ('active', 'deactivated', 'erased')", name="status"),
        CheckConstraint("1 <= min_session_version AND min_session_version <= session_version", name="session_version"),
        CheckConstraint("(spared_session_id IS NULL) = (spared_session_version IS NULL)", name="spared"),
        Index(None, "revoked_at", postgresql_where=text("revoked_at IS NOT NULL")),
    )

    def learn(self, version: int, *, status: str | None = None, role: str | None = None) -> bool:
        """Takes in what users said as of `version`; False, and nothing changed, where something later is known.

        A step ahead starts a new session version: should the event of that step be a revocation, it will not be about
        the tokens minted from here on.
        """
        if version < self.version:
            return False
        self.status = status or self.status
        self.role = role or self.role
        if version > self.version:
            self.version = version
            self.session_version += 1
        return True

    def cut(self, now: datetime, *, spare: uuid.UUID | None = None) -> None:
        """Voids all tokens minted under an earlier session version, but for those of the spared session that were not
        void already.
        """
        was_spared = spare is not None and spare == self.spared_session_id
        floor = self.spared_session_version if was_spared else self.min_session_version
        self.spared_session_id, self.spared_session_version = spare, None if spare is None else floor
        self.min_session_version = self.session_version
        self.revoked_at = now
        self.event_version += 1


@dataclass(frozen=True, slots=True)
class Limits:
    """How long sessions live, and how long a lost answer may be asked for again."""

    idle: timedelta
    absolute: timedelta
    window: timedelta


class Session(Base):
    """A person signed in with a client: one family of refresh tokens."""

    __tablename__ = "sessions"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("subjects.user_id"))
    client_id: Mapped[str]
    scopes: Mapped[list[str]]
    resources: Mapped[list[str]]
    device: Mapped[str]
    created_at: Mapped[datetime]
    """Also when the person authenticated: the tokens' `auth_time`."""
    last_used_at: Mapped[datetime]
    idle_until: Mapped[datetime]
    ends_at: Mapped[datetime]
    subject_version: Mapped[int]
    """Users' version of the person that the password was checked against."""
    place: Mapped[int] = mapped_column(default=1)
    nonce: Mapped[bytes]
    token_hash: Mapped[bytes]
    parent_hash: Mapped[bytes | None]
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

    def is_live(self, now: datetime) -> bool:
        return self.revoked_at is None and now < self.idle_until

    def begin(self, secret: bytes, now: datetime, limits: Limits) -> PresentedToken:
        """Starts the family with its first token."""
        self.created_at = self.last_used_at = now
        self.ends_at = now + limits.absolute
        self.idle_until = min(now + limits.idle, self.ends_at)
        self.nonce = refresh.new_nonce()
        first = refresh.derive(secret, self.id, 1, self.nonce)
        self.token_hash = first.digest
        return first

    def present(
        self, token: PresentedToken, secret: bytes, now: datetime, limits: Limits
    ) -> "PresentedToken | Reuse | None":
        """The child of a token that is presented: a new one for the newest token, the same one again for its parent
        within the window, `Reuse` for any other that was really issued, None for one that never was.
        """
        if token.digest == self.token_hash:
            child = refresh.derive(secret, self.id, self.place + 1, self.nonce)
            self.parent_hash, self.token_hash = self.token_hash, child.digest
            self.place += 1
            self.rotated_at = self.last_used_at = now
            self.idle_until = min(now + limits.idle, self.ends_at)
            return child
        if token.digest == self.parent_hash and self.rotated_at and now < self.rotated_at + limits.window:
            again = refresh.derive(secret, self.id, self.place, self.nonce)
            # Unless the secret was changed in these seconds: then nobody can tell that child any more.
            return again if again.digest == self.token_hash else None
        return Reuse() if self.issued(token, secret) else None

    def issued(self, token: PresentedToken, secret: bytes) -> bool:
        """Whether the token is one of this family's, used or not."""
        return token.digest in (self.token_hash, self.parent_hash) or token.is_authentic(secret, self.nonce)

    def revoke(self, reason: str, now: datetime) -> None:
        self.revoked_at, self.revoke_reason = now, reason
        self.version += 1


class Reuse:
    """A refresh token was presented that had been used before: somebody else may have it (RFC 9700 §4.14.2)."""


class RevokedToken(Base):
    """A client's own access token that was revoked: it has no session, its `sid` is its own."""

    __tablename__ = "revoked_tokens"

    sid: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    client_id: Mapped[str]
    revoked_at: Mapped[datetime] = mapped_column(index=True)
