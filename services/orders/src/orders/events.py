"""The events that orders publishes.

A change may only add optional fields; any other change needs a new event type. Docstrings are published in
`contracts/`: write them for consumers. The data of `OrderPlaced` is written by the SQL of `orders.placing`, the fields
of `OrderChanged` by that of `orders.changing`: change them there as well.
"""

from datetime import datetime
from typing import Annotated, ClassVar, Final, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from common.messaging.cloudevents import Event
from orders.models import Money, OrderStatus

Amount = Annotated[Money, Field(examples=[{"amount": 4900, "currency": "EUR"}])]


class OrderedLine(BaseModel):
    """`name` and `unit_price` are those of the catalogue when the order was placed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sku: str
    name: Annotated[str, Field(examples=["Desk lamp"])]
    quantity: int
    unit_price: Amount


class OrderPlaced(Event):
    """A customer placed an order. It is the first event of an order, so its version is 1.

    `total` is the sum of the lines, all in the same currency.
    """

    type: ClassVar[str] = "orders.order.placed.v1"

    order_id: UUID
    customer_id: UUID
    lines: list[OrderedLine]
    total: Amount
    placed_at: datetime


class OrderChanged(Event):
    """The fields of every later event. `status` is the order's state after it."""

    status: ClassVar[OrderStatus]

    order_id: UUID
    customer_id: UUID
    total: Amount


class OrderConfirmed(OrderChanged):
    """Staff confirmed the order. From now on only staff can cancel it."""

    type: ClassVar[str] = "orders.order.confirmed.v1"
    status: ClassVar[OrderStatus] = OrderStatus.CONFIRMED


class OrderShipped(OrderChanged):
    """The order left with a carrier. It can no longer be cancelled."""

    type: ClassVar[str] = "orders.order.shipped.v1"
    status: ClassVar[OrderStatus] = OrderStatus.SHIPPED

    carrier: str
    tracking_number: str


class OrderDelivered(OrderChanged):
    """The order arrived. No event follows."""

    type: ClassVar[str] = "orders.order.delivered.v1"
    status: ClassVar[OrderStatus] = OrderStatus.DELIVERED


class OrderCancelled(OrderChanged):
    """The order was cancelled before it was shipped. No event follows. `reason` is free text and may be null."""

    type: ClassVar[str] = "orders.order.cancelled.v1"
    status: ClassVar[OrderStatus] = OrderStatus.CANCELLED

    reason: str | None
    cancelled_by: Literal["customer", "staff"]


TYPES: Final = (
    OrderPlaced.type,
    OrderConfirmed.type,
    OrderShipped.type,
    OrderDelivered.type,
    OrderCancelled.type,
)
