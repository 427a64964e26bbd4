"""The events that samples publishes. Fields are only added, and as optional; anything else is a new version."""

from datetime import datetime
from typing import ClassVar
from uuid import UUID

from common.messaging.cloudevents import Event


class ItemCreated(Event):
    type: ClassVar[str] = "samples.item.created.v1"

    item_id: UUID
    owner_id: UUID
    created_at: datetime
