"""The catalogue and orders: tables, and the rules of an order's state, which the statement in `changing` applies."""

import enum
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, MetaData, SmallInteger, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, composite, mapped_column

from common.db.database import COLUMN_TYPES, NAMING

MAX_PRICE: Final = 10**12
MAX_QUANTITY: Final = 1000
MAX_LINES: Final = 100
MAX_TOTAL: Final = 2**53 - 1
"""Minor units. The largest integer that every JSON reader represents exactly (RFC 8259 §6)."""


@dataclass(frozen=True, slots=True)
class Money:
    """An exact amount in minor units (cents) of an ISO 4217 currency."""

    amount: int
    currency: str


class OrderStatus(enum.StrEnum):
    PLACED = "placed"
    CONFIRMED = "confirmed"
    SHIPPED = "shipped"
    DELIVERED = "delivered"
    CANCELLED = "cancelled"


TRANSITIONS: Final = (
    (OrderStatus.PLACED, OrderStatus.CONFIRMED),
    (OrderStatus.CONFIRMED, OrderStatus.SHIPPED),
    (OrderStatus.SHIPPED, OrderStatus.DELIVERED),
    (OrderStatus.PLACED, OrderStatus.CANCELLED),
    (OrderStatus.CONFIRMED, OrderStatus.CANCELLED),
)
"""From which state to which staff may take an order."""
CUSTOMERS_TRANSITIONS: Final = ((OrderStatus.PLACED, OrderStatus.CANCELLED),)
"""The same for the order's customer."""


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = COLUMN_TYPES


class Product(Base):
    """An article of the catalogue with its current price. Products are deactivated, never deleted."""

    __tablename__ = "products"
    __table_args__ = (
        CheckConstraint("sku ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'", name="sku"),
        CheckConstraint("char_length(name) BETWEEN 1 AND 200", name="name"),
        CheckConstraint(f"price_amount BETWEEN 0 AND {MAX_PRICE}", name="price_amount"),
        CheckConstraint("price_currency ~ '^[A-Z]{3}$'", name="price_currency"),
    )

    sku: Mapped[str] = mapped_column(Text(collation="C"), primary_key=True)
    name: Mapped[str]
    price: Mapped[Money] = composite(mapped_column("price_amount", BigInteger), mapped_column("price_currency", Text))
    active: Mapped[bool]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class Order(Base):
    """One customer's order. `version` is that of its latest event: each change increments it once and records one
    event, while the row is locked.

    Ids sort by the time of placing, so that lists with the newest first need no other index.
    """

    __tablename__ = "orders"
    __table_args__ = (
        CheckConstraint("status IN ('placed', 'confirmed', 'shipped', 'delivered', 'cancelled')", name="status"),
        CheckConstraint("(status = 'placed') = (version = 1) AND version >= 1", name="version"),
        CheckConstraint(f"total_amount BETWEEN 0 AND {MAX_TOTAL}", name="total_amount"),
        CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
        CheckConstraint("char_length(note) <= 1000", name="note"),
        CheckConstraint("(idempotency_key IS NULL) = (request_hash IS NULL)", name="idempotency_key"),
        Index(None, "customer_id", "id"),
        Index(None, "status", "id"),
        Index(None, "updated_at"),
        Index(
            "uq_orders_customer_id_idempotency_key",
            "customer_id",
            "idempotency_key",
            unique=True,
            postgresql_where="idempotency_key IS NOT NULL",
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    customer_id: Mapped[UUID]
    """The `sub` of the customer's token. No foreign key: users has its own database."""
    status: Mapped[OrderStatus] = mapped_column(Text)
    total_amount: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str]
    """Currency of the total and of every line."""
    note: Mapped[str | None]
    version: Mapped[int]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    idempotency_key: Mapped[str | None]
    request_hash: Mapped[bytes | None]
    """Hash of the request that was sent with the key."""


class OrderLine(Base):
    """A product as it was ordered. Name and price are copies from that moment, so there is no foreign key."""

    __tablename__ = "order_lines"
    __table_args__ = (
        CheckConstraint("position BETWEEN 1 AND 100", name="position"),
        CheckConstraint("quantity BETWEEN 1 AND 1000", name="quantity"),
        CheckConstraint(f"unit_amount BETWEEN 0 AND {MAX_PRICE}", name="unit_amount"),
    )

    order_id: Mapped[UUID] = mapped_column(ForeignKey("orders.id"), primary_key=True)
    position: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    """From 1, in the customer's order."""
    sku: Mapped[str]
    name: Mapped[str]
    quantity: Mapped[int]
    unit_amount: Mapped[int] = mapped_column(BigInteger)
    """Price of one unit, in minor units of the order's currency."""


class TimelineEntry(Base):
    """One event of an order. Stays as long as the order, unlike the outbox and the event log."""

    __tablename__ = "order_timeline"
    __table_args__ = (CheckConstraint("version >= 1", name="version"),)

    order_id: Mapped[UUID] = mapped_column(ForeignKey("orders.id"), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    type: Mapped[str]
    occurred_at: Mapped[datetime]
    data: Mapped[dict[str, Any]]
