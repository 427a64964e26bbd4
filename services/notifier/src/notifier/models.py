"""Contacts, notifications and mail deliveries: tables, and the rules of their states."""

from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, MetaData, Text, UniqueConstraint, func, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from common.db.database import COLUMN_TYPES, NAMING, new_id

OrderKind = Literal["order_placed", "order_confirmed", "order_shipped", "order_delivered", "order_cancelled"]
LinkKind = Literal["verify_email", "reset_password", "confirm_email", "revert_email"]
"""Mails with a one-time link, each named like the link's purpose in users."""
SecurityKind = Literal[
    LinkKind,
    "password_changed",
    "email_changed",
    "new_sign_in",
    "account_deactivated",
    "account_reactivated",
    "authenticator_changed",
    "webhook_added",
    "webhook_disabled",
    "email_reverted",
]
Kind = Literal["welcome"] | OrderKind | SecurityKind
Preference = Literal["order_updates", "welcome"]
Channel = Literal["mail"]
State = Literal["waiting", "pending", "sent", "failed", "cancelled"]
MailState = Literal["waiting", "held", "pending", "sent", "failed", "cancelled"]

TITLES: Final[dict[Kind, str]] = {
    "welcome": "Welcome to Waybill",
    "order_placed": "We have your order",
    "order_confirmed": "Your order is confirmed",
    "order_shipped": "Your order is on its way",
    "order_delivered": "Your order was delivered",
    "order_cancelled": "Your order was cancelled",
    "password_changed": "Your password was changed",
    "verify_email": "Please verify your e-mail address",
    "reset_password": "Reset your password",
    "email_changed": "Your e-mail address was changed",
    "new_sign_in": "New sign-in to your account",
    "account_deactivated": "Your account was deactivated",
    "account_reactivated": "Your account is active again",
    "authenticator_changed": "Your second factor was changed",
    "webhook_added": "A webhook was added to your account",
    "webhook_disabled": "A webhook was disabled",
    "confirm_email": "Please confirm your new e-mail address",
    "revert_email": "Your e-mail address is about to change",
    "email_reverted": "Your e-mail address was restored",
}


def preference_of(kind: Kind) -> Preference | None:
    """The preference that turns off mails of this kind. None for security mails, which are always sent."""
    match kind:
        case "welcome":
            return "welcome"
        case "order_placed" | "order_confirmed" | "order_shipped" | "order_delivered" | "order_cancelled":
            return "order_updates"
        case _:
            return None


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = COLUMN_TYPES


class Contact(Base):
    """A person's address, from events of users, and their mail preferences. Version 0 has preferences only.

    The row stays, empty, after the person is erased, so that a late event can't restore them.
    """

    __tablename__ = "contacts"
    __table_args__ = (
        CheckConstraint("version >= 0", name="version"),
        CheckConstraint("(name IS NULL) = (email IS NULL)", name="whole"),
        CheckConstraint("(email IS NOT NULL) = (version > 0 AND NOT erased)", name="known"),
    )

    user_id: Mapped[UUID] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(server_default=text("0"))
    name: Mapped[str | None]
    email: Mapped[str | None]
    erased: Mapped[bool] = mapped_column(server_default=text("false"))
    email_version: Mapped[int] = mapped_column(server_default=text("0"))
    """The version since which the account has this address."""
    verified_version: Mapped[int] = mapped_column(server_default=text("0"))
    """The version in which an address of the account was last verified. Both are 0 for contacts of before release 0.2,
    whose addresses count as verified."""
    order_updates: Mapped[bool] = mapped_column(server_default=text("true"))
    welcome: Mapped[bool] = mapped_column(server_default=text("true"))

    @property
    def is_known(self) -> bool:
        return self.email is not None

    @property
    def is_verified(self) -> bool:
        """Whether the person has proved that they receive mail at the address."""
        return self.verified_version >= self.email_version

    def update(self, *, version: int, name: str, email: str) -> bool:
        """Applies an event of users. Returns False if it is outdated or the person is erased."""
        if self.erased or version <= self.version:
            return False
        if email != self.email:
            self.email_version = version
        self.version, self.name, self.email = version, name, email
        return True

    def verify(self, *, version: int) -> None:
        """The address that the account had in this version is verified."""
        self.verified_version = max(version, self.verified_version)

    def erase(self, *, version: int) -> None:
        """Erases the person permanently."""
        self.version, self.name, self.email, self.erased = max(version, self.version), None, None, True
        self.order_updates = self.welcome = True
        self.email_version = self.verified_version = 0

    def turn_off(self, preference: Preference) -> None:
        match preference:
            case "order_updates":
                self.order_updates = False
            case "welcome":
                self.welcome = False


class Notification(Base):
    """A notification of one event, with the event's id. Each event notifies a person once.

    Mails and webhooks are composed from `data`. Of an order's event it has everything but the ids of order and person.
    """

    __tablename__ = "notifications"
    __table_args__ = (
        CheckConstraint(f"kind IN ({', '.join(repr(kind) for kind in TITLES)})", name="kind"),
        CheckConstraint("(order_id IS NOT NULL) = starts_with(kind, 'order_')", name="order_id"),
        # One per state of an order, whichever event reports it.
        Index(
            "uq_notifications_order_id_kind", "order_id", "kind", unique=True, postgresql_where="order_id IS NOT NULL"
        ),
        Index("uq_notifications_welcome", "user_id", unique=True, postgresql_where="kind = 'welcome'"),
        Index(None, "user_id", "created_at", "id"),
        Index("ix_notifications_unread", "user_id", "created_at", "id", postgresql_where="read_at IS NULL"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID]
    """The contact may be unknown yet, so this is no foreign key."""
    kind: Mapped[Kind] = mapped_column(Text)
    order_id: Mapped[UUID | None]
    data: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    """Time of the event, so that a notification that is processed late is listed in order."""
    read_at: Mapped[datetime | None]

    @property
    def title(self) -> str:
        return TITLES[self.kind]

    def read(self, now: datetime) -> None:
        self.read_at = self.read_at or now


class Delivery(Base):
    """The delivery of one notification over one channel.

    `waiting` for its contact → `pending` → `sent`, `failed` (refused permanently) or `cancelled` (no longer needed).
    Past the mails that an unverified address may receive it is `held` until the address is verified, then `pending`.

    A deliverer claims a pending delivery by moving `due_at` ahead by its lease; if it dies, the delivery becomes due
    again. A waiting delivery has a `due_at` too, when its contact is looked up again: see `queries.release_overlooked`.
    """

    __tablename__ = "deliveries"
    __table_args__ = (
        UniqueConstraint("notification_id", "channel"),
        CheckConstraint("channel IN ('mail')", name="channel"),
        CheckConstraint("state IN ('waiting', 'held', 'pending', 'sent', 'failed', 'cancelled')", name="state"),
        CheckConstraint("(settled_at IS NOT NULL) = (state IN ('sent', 'failed', 'cancelled'))", name="settled"),
        CheckConstraint("state <> 'failed' OR cause IS NOT NULL", name="cause"),
        # The two queues: partial, so that they stay small as the history grows.
        Index("ix_deliveries_pending", "due_at", postgresql_where="state = 'pending'"),
        Index("ix_deliveries_waiting", "due_at", postgresql_where="state = 'waiting'"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    notification_id: Mapped[UUID] = mapped_column(ForeignKey("notifications.id", ondelete="CASCADE"))
    channel: Mapped[Channel] = mapped_column(Text)
    state: Mapped[MailState] = mapped_column(Text)
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    due_at: Mapped[datetime] = mapped_column(server_default=func.now())
    cause: Mapped[str | None]
    """Why the last attempt failed."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    settled_at: Mapped[datetime | None]
    traceparent: Mapped[str | None]
    """Parent of the attempts' spans: the processing of the event."""

    @classmethod
    def by_mail(cls, notification_id: UUID, *, waiting: bool, traceparent: str | None) -> "Delivery":
        state: MailState = "waiting" if waiting else "pending"
        return cls(id=new_id(), notification_id=notification_id, channel="mail", state=state, traceparent=traceparent)


class UnverifiedMails(Base):
    """How many mails an unverified address was sent on a day. Outlives the account, which its owner may sign up again.

    The address is stored as a digest with a key: see `notifier.mail.limits`.
    """

    __tablename__ = "unverified_mails"
    __table_args__ = (CheckConstraint("mails > 0", name="mails"),)

    day: Mapped[datetime] = mapped_column(primary_key=True)
    """Its first moment, in UTC."""
    address: Mapped[bytes] = mapped_column(primary_key=True)
    mails: Mapped[int]
