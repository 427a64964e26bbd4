"""What a webhook and its deliveries are, in memory."""

from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

ATTEMPTS: Final = 9


@dataclass
class Delivery:
    type: str
    data: dict[str, Any]
    state: str = "pending"
    attempts: int = 0

    def attempt(self, answer: str) -> None:
        self.attempts += 1
        if answer == "taken":
            self.state = "sent"
        elif answer == "gone" or self.attempts == ATTEMPTS:
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
    deliveries: dict[UUID, Delivery] = field(default_factory=dict)
