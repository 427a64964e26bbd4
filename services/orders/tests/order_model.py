"""What the API of orders promises, as a plain model in memory that knows neither SQL nor HTTP."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from orders.models import MAX_TOTAL

Line = tuple[str, int]
Refusal = tuple[int, str]
"""Status and code of a response."""

STEPS: Final[Mapping[str, tuple[str, Collection[str], Mapping[str, Any]]]] = {
    "confirm": ("confirmed", ("placed",), {}),
    "ship": ("shipped", ("confirmed",), {"carrier": "Postal", "tracking_number": "PX-42"}),
    "deliver": ("delivered", ("shipped",), {}),
    "cancel": ("cancelled", ("placed", "confirmed"), {"reason": "Ada moved"}),
}
"""The state after each step, those that staff may take it from, and the fields of its body."""


@dataclass
class Event:
    """An entry of the timeline, and the event that is published for it."""

    order_id: str
    version: int
    type: str
    occurred_at: str
    data: dict[str, Any]

    @property
    def shown(self) -> dict[str, Any]:
        return {"type": self.type, "occurred_at": self.occurred_at, "data": self.data}


@dataclass
class Order:
    customer: UUID
    shown: dict[str, Any]
    """As a GET answers."""
    events: list[Event] = field(default_factory=list)

    @property
    def id(self) -> str:
        return str(self.shown["id"])

    @property
    def version(self) -> int:
        return len(self.events)

    @property
    def etag(self) -> str:
        return f'"{self.version}"'


@dataclass
class UsedKey:
    lines: Sequence[Line]
    note: str | None
    answer: bytes


class Model:
    def __init__(self) -> None:
        self.products: dict[str, dict[str, Any]] = {}
        self.orders: list[Order] = []
        self.keys: dict[tuple[UUID, str], UsedKey] = {}
        self.events: list[Event] = []
        """Of all orders, in the order in which they must be published."""

    def refusal(self, lines: Sequence[Line]) -> tuple[str, list[int]] | None:
        """The code, and the positions of the lines at fault."""
        found = [self.products.get(sku) for sku, _ in lines]
        if unknown := [n for n, product in enumerate(found) if product is None]:
            return "unknown_sku", unknown
        known = [product for product in found if product is not None]
        if inactive := [n for n, product in enumerate(known) if not product["active"]]:
            return "inactive_product", inactive
        currencies = [product["price"]["currency"] for product in known]
        if mixed := [n for n, currency in enumerate(currencies) if currency != currencies[0]]:
            return "mixed_currencies", mixed
        return ("total_too_large", []) if self._total(lines) > MAX_TOTAL else None

    def _total(self, lines: Sequence[Line]) -> int:
        return sum(quantity * int(self.products[sku]["price"]["amount"]) for sku, quantity in lines)

    def place(self, customer: UUID, lines: Sequence[Line], note: str | None, *, order_id: str, at: str) -> Order:
        ordered = [
            {"sku": sku, "quantity": quantity, **{name: self.products[sku][name] for name in ("name", "price")}}
            for sku, quantity in lines
        ]
        for line in ordered:
            line["unit_price"] = line.pop("price")
        total = {"amount": self._total(lines), "currency": ordered[0]["unit_price"]["currency"]}
        ids = {"customer_id": str(customer), "lines": ordered, "total": total}
        times = {"created_at": at, "updated_at": at}
        order = Order(customer, {"id": order_id, "status": "placed", "note": note, **ids, **times})
        self._record(order, "placed", at, {"order_id": order_id, **ids, "placed_at": at})
        self.orders.append(order)
        return order

    def change_refusal(self, order: Order, step: str, by: str, expected: Collection[int] | None) -> Refusal | None:
        """`by` is `staff`, `owner` or `stranger`. `expected` are the versions that If-Match names, None for any."""
        _, allowed, _ = STEPS[step]
        if by != "staff" and step != "cancel":
            return 403, "forbidden"
        if by == "stranger":
            return 404, "not_found"
        if expected is not None and order.version not in expected:
            return 412, "precondition_failed"
        if order.shown["status"] not in (allowed if by == "staff" else ("placed",)):
            return 409, "invalid_transition"
        return None

    def change(self, order: Order, step: str, by: str, *, at: str) -> None:
        status, _, details = STEPS[step]
        if step == "cancel":
            details = {**details, "cancelled_by": "staff" if by == "staff" else "customer"}
        order.shown = {**order.shown, "status": status, "updated_at": at}
        kept = {name: order.shown[name] for name in ("customer_id", "total")}
        self._record(order, status, at, {"order_id": order.id, **kept, **details})

    def _record(self, order: Order, status: str, at: str, data: dict[str, Any]) -> None:
        event = Event(order.id, order.version + 1, f"orders.order.{status}.v1", at, data)
        order.events.append(event)
        self.events.append(event)

    def erase(self, customer: UUID) -> None:
        """Takes all text that anybody wrote."""
        for order in self.orders:
            if order.customer == customer:
                order.shown = {**order.shown, "note": None}
                for event in order.events:
                    event.data = {**event.data, **({"reason": None} if "reason" in event.data else {})}
        self.keys = {key: used for key, used in self.keys.items() if key[0] != customer}
