"""Accounts, second factors and one-time links: tables, and the rules of their state."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Literal, get_args
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Double, ForeignKey, Index, LargeBinary, MetaData, SmallInteger, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from common.db.database import COLUMN_TYPES, NAMING, new_id, utc_now

Role = Literal["user", "staff", "admin"]
Status = Literal["active", "deactivated"]
LinkPurpose = Literal["verify_email", "reset_password", "confirm_email", "revert_email"]
ProfileField = Literal["name", "age"]

ADMIN: Final = "admin"
PROFILE_FIELDS: Final[tuple[ProfileField, ...]] = get_args(ProfileField)


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = COLUMN_TYPES


def _one_of(column: str, values: Any) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in get_args(values))
    return CheckConstraint(f"{column} IN ({listed})", name=column)


class User(Base):
    """An account. `version` is that of its latest event: each change increments it once and records one event, while
    the row is locked.
    """

    __tablename__ = "users"
    __table_args__ = (
        CheckConstraint("char_length(name) BETWEEN 1 AND 100", name="name"),
        CheckConstraint("email = lower(email) AND char_length(email) <= 254", name="email"),
        CheckConstraint(
            "pending_email = lower(pending_email) AND char_length(pending_email) <= 254", name="pending_email"
        ),
        CheckConstraint("age BETWEEN 1 AND 149", name="age"),
        _one_of("role", Role),
        _one_of("status", Status),
        CheckConstraint("password_hash LIKE '$argon2id$%'", name="password_hash"),
        CheckConstraint("version >= 1", name="version"),
        # For admins' lists, and for locking all admins. Partial: most accounts are active and have the role user.
        Index(None, "role", "id", postgresql_where="role <> 'user'"),
        Index(None, "status", "id", postgresql_where="status <> 'active'"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str]
    email: Mapped[str] = mapped_column(unique=True)
    email_verified: Mapped[bool]
    pending_email: Mapped[str | None]
    """The address that replaces `email` once the person has used the link that was mailed to it."""
    # Loaded only where a query says so, so that no list or response holds a hash by accident.
    password_hash: Mapped[str] = mapped_column(deferred=True, deferred_raiseload=True)
    role: Mapped[Role] = mapped_column(Text)
    status: Mapped[Status] = mapped_column(Text)
    age: Mapped[int | None] = mapped_column(SmallInteger)
    version: Mapped[int]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]

    @classmethod
    def register(cls, *, name: str, email: str, age: int | None, password_hash: str) -> "User":
        now = utc_now()
        return cls(
            id=new_id(),
            name=name,
            email=email,
            email_verified=False,
            pending_email=None,
            password_hash=password_hash,
            role="user",
            status="active",
            age=age,
            version=1,
            created_at=now,
            updated_at=now,
        )

    @property
    def is_active_admin(self) -> bool:
        return self.role == ADMIN and self.status == "active"

    def change_profile(self, changes: Mapping[ProfileField, Any]) -> list[ProfileField]:
        """Sets the given fields and returns those whose value differs."""
        changed = [field for field in PROFILE_FIELDS if field in changes and changes[field] != getattr(self, field)]
        for field in changed:
            setattr(self, field, changes[field])
        if changed:
            self._next_version()
        return changed

    def change_email(self, email: str) -> bool:
        """Returns whether the address differs from the one before. A new address is not verified."""
        self.pending_email = None
        if self.email == email:
            return False
        self.email = email
        self.email_verified = False
        self._next_version()
        return True

    def change_role(self, role: Role) -> bool:
        """Returns whether the role differs from the one before."""
        if self.role == role:
            return False
        self.role = role
        self._next_version()
        return True

    def change_status(self, status: Status) -> bool:
        """Returns whether the status differs from the one before."""
        if self.status == status:
            return False
        self.status = status
        self._next_version()
        return True

    def verify_email(self) -> bool:
        """Returns whether the address was not verified before."""
        if self.email_verified:
            return False
        self.email_verified = True
        self._next_version()
        return True

    def set_password(self, password_hash: str) -> None:
        self.password_hash = password_hash
        self._next_version()

    def count_change(self) -> None:
        """For a change that is in other tables: of the second factor, or that the person took their address back."""
        self._next_version()

    def _next_version(self) -> None:
        self.version += 1
        self.updated_at = utc_now()


class SecretLink(Base):
    """A requested one-time link. Its secrets are created when mails are written, and stored as hashes.

    A change of the account that makes its links void deletes them. `email` is the address that a link confirms or
    restores.
    """

    __tablename__ = "secret_links"
    __table_args__ = (
        _one_of("purpose", LinkPurpose),
        CheckConstraint("(email IS NULL) = (purpose IN ('verify_email', 'reset_password'))", name="email"),
        Index(None, "email", postgresql_where="purpose = 'revert_email'"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    purpose: Mapped[LinkPurpose] = mapped_column(Text)
    email: Mapped[str | None]
    requested_at: Mapped[datetime] = mapped_column(index=True)
    used_at: Mapped[datetime | None]


class SecretLinkToken(Base):
    """The secret in one mail. A mail that was written twice has two secrets; either one uses the link."""

    __tablename__ = "secret_link_tokens"
    __table_args__ = (CheckConstraint("octet_length(digest) = 32", name="digest"),)

    digest: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    link_id: Mapped[UUID] = mapped_column(ForeignKey("secret_links.id", ondelete="CASCADE"), index=True)
    expires_at: Mapped[datetime]


class TotpAuthenticator(Base):
    """An account's authenticator app (RFC 6238). It is a second factor from its confirmation on.

    `last_step` is the time step of the last code that was accepted: only a later one is good (RFC 6238 §5.2).
    """

    __tablename__ = "totp_authenticators"
    __table_args__ = (
        CheckConstraint(
            "(confirmed_at IS NULL) = (last_step IS NULL) AND (confirmed_at IS NULL) = (last_used_at IS NULL)",
            name="confirmed_at",
        ),
    )

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    sealed: Mapped[bytes] = mapped_column(LargeBinary)
    """The secret, encrypted by `common.security.sealing` with the key of `kek_id`."""
    kek_id: Mapped[str]
    created_at: Mapped[datetime]
    confirmed_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    last_step: Mapped[int | None] = mapped_column(BigInteger)


class RecoveryCode(Base):
    """A code that takes the place of the authenticator app once, and is deleted by its use."""

    __tablename__ = "recovery_codes"
    __table_args__ = (CheckConstraint("octet_length(digest) = 32", name="digest"),)

    user_id: Mapped[UUID] = mapped_column(
        ForeignKey("totp_authenticators.user_id", ondelete="CASCADE"), primary_key=True
    )
    digest: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)


class LoginBackoff(Base):
    """Sign-ins of one account from one network: failed ones since the last success, and those in flight."""

    __tablename__ = "login_backoffs"
    __table_args__ = (CheckConstraint("failures >= 0 AND in_flight >= 0", name="counts"),)

    key: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    failures: Mapped[int]
    in_flight: Mapped[int]
    blocked_until: Mapped[datetime | None]
    updated_at: Mapped[datetime]


class LoginBucket(Base):
    """A leaky bucket of failed sign-ins or of requested mails. `level` is that of `updated_at`."""

    __tablename__ = "login_buckets"
    __table_args__ = (CheckConstraint("level >= 0", name="level"),)

    key: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    level: Mapped[float] = mapped_column(Double)
    updated_at: Mapped[datetime]


class KnownNetwork(Base):
    """A network from which the account has signed in. Failures from other networks never block it."""

    __tablename__ = "known_networks"

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    network: Mapped[str] = mapped_column(primary_key=True)
    last_login_at: Mapped[datetime] = mapped_column(index=True)
