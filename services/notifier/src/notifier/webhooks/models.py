"""Webhooks, their deliveries and attempts: tables, and the rules of their states."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, Text, func, text
from sqlalchemy.orm import Mapped, mapped_column

from notifier.models import Base, State

EventType = Literal[
    "orders.order.placed.v1",
    "orders.order.confirmed.v1",
    "orders.order.shipped.v1",
    "orders.order.delivered.v1",
    "orders.order.cancelled.v1",
]
"""Events that webhooks can subscribe to.

Each also creates a notification (`_ORDER_EVENTS` in `notifier.consumers`), which stores the `data` of the webhook. So a
new event type needs a kind of notification as well (docs/changing.md).
"""
TEST_TYPE: Final = "notifier.webhook.test.v1"

DisabledReason = Literal["by_owner", "failing", "account_recovered"]


@dataclass(frozen=True, slots=True)
class Owner:
    """A person, whose webhooks receive the events of their own orders, or a client, whose webhooks receive all."""

    user_id: UUID | None = None
    client_id: str | None = None


class Webhook(Base):
    """A URL to which the events of orders are posted."""

    __tablename__ = "webhooks"
    __table_args__ = (
        CheckConstraint("cardinality(event_types) > 0", name="event_types"),
        CheckConstraint("(previous_secret IS NULL) = (previous_until IS NULL)", name="previous"),
        CheckConstraint("(user_id IS NULL) <> (client_id IS NULL)", name="owner"),
        CheckConstraint("enabled = (disabled_reason IS NULL)", name="enabled"),
        CheckConstraint("disabled_reason IN ('by_owner', 'failing', 'account_recovered')", name="disabled_reason"),
        Index("ix_webhooks_client_id", "client_id", postgresql_where="client_id IS NOT NULL"),
        Index("ix_webhooks_disabled", "id", postgresql_where="NOT enabled"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID | None] = mapped_column(index=True)
    client_id: Mapped[str | None]
    """The owner, if it is a client and not a person."""
    url: Mapped[str]
    host: Mapped[str]
    """`host:port` of the URL."""
    event_types: Mapped[list[str]]
    secret: Mapped[bytes]
    """Encrypted, as is the previous one: see `notifier.webhooks.secrets`."""
    previous_secret: Mapped[bytes | None]
    previous_until: Mapped[datetime | None]
    enabled: Mapped[bool] = mapped_column(server_default=text("true"))
    disabled_reason: Mapped[DisabledReason | None] = mapped_column(Text)
    is_answering: Mapped[bool] = mapped_column(server_default=text("false"))
    """Whether the last attempt succeeded. Others share the slots that are not reserved for such webhooks."""
    failing_since: Mapped[datetime | None]
    """The first failed attempt after the last success."""
    last_failed_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]
    """Nobody sees it any more, and it receives nothing. `notifier.webhooks.ending` deletes it and its deliveries."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    @property
    def owner(self) -> Owner:
        return Owner(self.user_id, self.client_id)

    def replace_secret(self, sealed: bytes, *, previous_until: datetime) -> None:
        """Deliveries are signed with the old secret too, until `previous_until`."""
        self.previous_secret, self.previous_until, self.secret = self.secret, previous_until, sealed

    def enable(self) -> None:
        """Starts a new count of failures."""
        self.enabled, self.disabled_reason = True, None
        self.forget_failures()

    def forget_failures(self) -> None:
        self.is_answering, self.failing_since, self.last_failed_at = False, None, None


class WebhookClient(Base):
    """A client that has or had webhooks. The row stays after the client ended, so that it can't create another one."""

    __tablename__ = "webhook_clients"

    client_id: Mapped[str] = mapped_column(primary_key=True)
    ended: Mapped[bool] = mapped_column(server_default=text("false"))


class WebhookDelivery(Base):
    """The delivery of one event to one webhook.

    `waiting` for an earlier event of its order → `pending` → `sent`, `failed` (given up) or `cancelled` (the webhook
    was disabled, or there is nothing to send). A settled one is sent again on request. At most one of an order is
    pending.

    The `data` to send is that of the notification with the id `event_id`; a test event has none. Claims are those of
    `notifier.models.Delivery`. A waiting delivery has a `due_at` too, when it is checked again: see
    `notifier.webhooks.planning.release_overlooked`.
    """

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        CheckConstraint("state IN ('waiting', 'pending', 'sent', 'failed', 'cancelled')", name="state"),
        CheckConstraint("(settled_at IS NOT NULL) = (state IN ('sent', 'failed', 'cancelled'))", name="settled"),
        CheckConstraint("state <> 'failed' OR cause IS NOT NULL", name="cause"),
        CheckConstraint("state <> 'waiting' OR order_id IS NOT NULL", name="waiting"),
        # Partial, so that they stay small as the history grows. That of hosts is for release 0.1.
        Index("ix_webhook_deliveries_pending", "host", "due_at", postgresql_where="state = 'pending'"),
        Index("ix_webhook_deliveries_queue", "webhook_id", "is_retry", "due_at", postgresql_where="state = 'pending'"),
        Index(
            "uq_webhook_deliveries_pending_order",
            "webhook_id",
            "order_id",
            unique=True,
            postgresql_where="state = 'pending' AND order_id IS NOT NULL",
        ),
        Index(
            "ix_webhook_deliveries_waiting_order",
            "webhook_id",
            "order_id",
            "order_version",
            "event_id",
            postgresql_where="state = 'waiting'",
        ),
        Index("ix_webhook_deliveries_waiting", "due_at", postgresql_where="state = 'waiting'"),
        # Tests, which a disabled webhook receives too.
        Index("ix_webhook_deliveries_test", "webhook_id", postgresql_where="state = 'pending' AND order_id IS NULL"),
        Index("ix_webhook_deliveries_settled_at", "settled_at", postgresql_where="settled_at IS NOT NULL"),
    )

    webhook_id: Mapped[UUID] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"), primary_key=True)
    event_id: Mapped[UUID] = mapped_column(primary_key=True)
    type: Mapped[str]
    host: Mapped[str]
    """The webhook's host at the time. Only deliverers of release 0.1 read it."""
    order_id: Mapped[UUID | None]
    """None for a test. Deliveries of an order are sent one after the other, by `order_version`."""
    order_version: Mapped[int | None]
    state: Mapped[State] = mapped_column(Text, server_default=text("'pending'"))
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    attempts_before: Mapped[int] = mapped_column(server_default=text("0"))
    """How many there were when it was last sent again: the retry delays start again."""
    is_retry: Mapped[bool] = mapped_column(server_default=text("false"))
    """Whether there was an attempt since it was planned or sent again. First attempts go before retries."""
    due_at: Mapped[datetime] = mapped_column(server_default=func.now())
    cause: Mapped[str | None]
    answer: Mapped[str | None]
    """The beginning of the last response's body."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    settled_at: Mapped[datetime | None]
    traceparent: Mapped[str | None]


class WebhookAttempt(Base):
    """One request of a delivery, and what came of it."""

    __tablename__ = "webhook_attempts"
    __table_args__ = (
        ForeignKeyConstraint(
            ["webhook_id", "event_id"],
            ["webhook_deliveries.webhook_id", "webhook_deliveries.event_id"],
            name="fk_webhook_attempts_webhook_id_webhook_deliveries",
            ondelete="CASCADE",
        ),
        Index("ix_webhook_attempts_at", "at"),
    )

    webhook_id: Mapped[UUID] = mapped_column(primary_key=True)
    event_id: Mapped[UUID] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    """`WebhookDelivery.attempts` at the time."""
    at: Mapped[datetime]
    status_code: Mapped[int | None]
    """None if no response arrived."""
    cause: Mapped[str | None]
    """None after a success."""
    duration_ms: Mapped[int]
