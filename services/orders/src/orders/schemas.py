"""Bodies and parameters of HTTP requests, and bodies of responses."""

import re
from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Path
from pydantic import Field

from common.web import Model, StrictModel
from common.web.single_line import SINGLE_LINE
from orders.models import MAX_LINES, MAX_PRICE, MAX_QUANTITY, Money, OrderStatus

_SKU: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
"""Safe in a path and in a file name. Case-sensitive."""

Sku = Annotated[str, Field(pattern=_SKU, description="Stock keeping unit, case-sensitive.", examples=["LAMP-01"])]
SkuPath = Annotated[str, Path(pattern=_SKU)]


def parse_sku(text: str) -> str:
    """For cursors. Raises `ValueError` if `text` is not a SKU."""
    if not re.fullmatch(_SKU, text):
        raise ValueError("not a SKU")
    return text


def parse_version(text: str) -> int:
    """For cursors. Raises `ValueError` if `text` is not a version."""
    version = int(text)
    if not 0 < version < 2**31:
        raise ValueError("not a version")
    return version


class Price(StrictModel):
    """An amount in minor units (cents) of an ISO 4217 currency."""

    amount: Annotated[int, Field(strict=True, ge=0, le=MAX_PRICE)]
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$", examples=["EUR"])]


class ProductIn(StrictModel):
    name: Annotated[str, Field(min_length=1, max_length=200), SINGLE_LINE]
    price: Price
    active: Annotated[bool, Field(strict=True)] = True


class ProductOut(Model):
    sku: str
    name: str
    price: Money
    active: bool
    created_at: datetime
    updated_at: datetime


class LineIn(StrictModel):
    sku: Sku
    quantity: Annotated[int, Field(strict=True, ge=1, le=MAX_QUANTITY)]


class PlaceOrder(StrictModel):
    """Lines stay in the given order. Several lines may have the same product."""

    lines: Annotated[list[LineIn], Field(min_length=1, max_length=MAX_LINES)]
    note: Annotated[str | None, Field(max_length=1000)] = None


class ShipOrder(StrictModel):
    carrier: Annotated[str, Field(min_length=1, max_length=100), SINGLE_LINE]
    tracking_number: Annotated[str, Field(min_length=1, max_length=100), SINGLE_LINE]


class CancelOrder(StrictModel):
    reason: Annotated[str | None, Field(max_length=500)] = None


class LineOut(Model):
    sku: str
    name: str
    quantity: int
    unit_price: Money


class OrderOut(Model):
    id: UUID
    customer_id: UUID
    status: OrderStatus
    lines: list[LineOut]
    total: Money
    note: str | None
    created_at: datetime
    updated_at: datetime


class TimelineEntryOut(Model):
    """An event of the order. `data` is the published data of the event."""

    type: str
    occurred_at: datetime
    data: dict[str, Any]
