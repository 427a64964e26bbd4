"""The events that orders publishes. Fields are only ever added, and as optional; anything else is a new version."""

from datetime import datetime
from typing import Annotated, ClassVar, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from common.messaging.cloudevents import Event
from orders.models import Money

Amount = Annotated[Money, Field(examples=[{"amount": 4900, "currency": "EUR"}])]


class OrderedLine(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    sku: str
    name: Annotated[str, Field(examples=["Desk lamp"])]
    quantity: int
    unit_price: Amount


class OrderPlaced(Event):
    """Recorded by `orders.placing`, whose statement makes the data in the database."""

    type: ClassVar[str] = "orders.order.placed.v1"

    order_id: UUID
    customer_id: UUID
    lines: list[OrderedLine]
    total: Amount
    placed_at: datetime


class OrderChanged(Event):
    """What every later event tells."""

    order_id: UUID
    customer_id: UUID
    total: Amount


class OrderConfirmed(OrderChanged):
    type: ClassVar[str] = "orders.order.confirmed.v1"


class OrderShipped(OrderChanged):
    type: ClassVar[str] = "orders.order.shipped.v1"

    carrier: str
    tracking_number: str


class OrderDelivered(OrderChanged):
    type: ClassVar[str] = "orders.order.delivered.v1"


class OrderCancelled(OrderChanged):
    type: ClassVar[str] = "orders.order.cancelled.v1"

    reason: str | None
    cancelled_by: Literal["customer", "staff"]
