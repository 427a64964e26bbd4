"""What a webhook and its deliveries are, in memory."""

from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

ATTEMPTS: Final = 9
UNSETTLED: Final = ("waiting", "pending")


@dataclass
class Delivery:
    type: str
    data: dict[str, Any]
    order: UUID | None = None
    """None for a test, which is tried once."""
    version: int = 0
    state: str = "waiting"
    attempts: int = 0
    tries: int = 0
    """Attempts since it was planned or sent again."""

    def attempt(self, answer: str) -> None:
        self.attempts += 1
        self.tries += 1
        if answer == "taken":
            self.state = "sent"
        elif answer == "gone" or self.tries == (ATTEMPTS if self.order else 1):
            self.state = "failed"


@dataclass
class Webhook:
    id: UUID
    owner: UUID
    target: str
    types: list[str]
    secrets: list[str]
    """The current one, and the one before."""
    answer: str = "taken"
    disabled_reason: str | None = None
    deliveries: dict[UUID, Delivery] = field(default_factory=dict)
    requests: list[tuple[UUID | None, UUID]] = field(default_factory=list)
    """Order and event of each request that must arrive, in the order of an order's events."""

    def plan(self, event_id: UUID, delivery: Delivery) -> None:
        self.deliveries[event_id] = delivery
        if self.disabled_reason is not None and delivery.order is not None:
            delivery.state = "cancelled"
        self.begin(delivery.order)

    def begin(self, order: UUID | None) -> None:
        """Attempts the order's first event that waits, unless one is pending; tests wait for nothing."""
        chain = [(each.version, event_id) for event_id, each in self.deliveries.items() if each.order == order]
        states = [self.deliveries[event_id].state for _, event_id in sorted(chain)]
        for (_, event_id), state in zip(sorted(chain), states, strict=True):
            if state == "waiting" and (order is None or "pending" not in states):
                self.attempt(event_id)
                return

    def attempt(self, event_id: UUID) -> None:
        delivery = self.deliveries[event_id]
        delivery.state = "pending"
        delivery.attempt(self.answer)
        self.requests.append((delivery.order, event_id))
        if delivery.state != "pending":
            self.begin(delivery.order)

    def attempt_pending(self) -> bool:
        pending = [event_id for event_id, delivery in self.deliveries.items() if delivery.state == "pending"]
        for event_id in pending:
            self.attempt(event_id)
        return bool(pending)

    def disable(self, reason: str) -> None:
        if self.disabled_reason is None:
            self.disabled_reason = reason
            for delivery in self.deliveries.values():
                if delivery.state in UNSETTLED:
                    delivery.state = "cancelled"

    def send_again(self, event_ids: list[UUID]) -> None:
        """Starts their orders from the first event that is not settled."""
        orders = {}
        for event_id in event_ids:
            delivery = self.deliveries[event_id]
            delivery.state, delivery.tries = "waiting", 0
            orders[delivery.order] = True
        for order in orders:
            for delivery in self.deliveries.values():
                if delivery.order == order and delivery.state == "pending":
                    delivery.state = "waiting"
            self.begin(order)
