"""Bodies of requests and responses of webhooks."""

from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, Field, StrictBool

from common.web import Model, StrictModel
from notifier.models import State
from notifier.webhooks.models import DisabledReason, EventType

Url = Annotated[str, Field(max_length=2048, description="An https URL whose host has public addresses only.")]
EventTypes = Annotated[
    list[EventType], Field(min_length=1, max_length=20), AfterValidator(lambda types: list(dict.fromkeys(types)))
]


class NewWebhook(StrictModel):
    url: Url
    event_types: EventTypes


_OMITTED: Final[Any] = Field(default_factory=lambda: None)
"""The default of a field that may be left out, and must not be null."""


class WebhookChange(StrictModel):
    """Fields that are left out keep their value."""

    url: Url = _OMITTED
    event_types: EventTypes = _OMITTED
    enabled: StrictBool = _OMITTED


class Recovery(StrictModel):
    since: AwareDatetime
    """At most 30 days ago."""


class WebhookOut(Model):
    id: UUID
    url: str
    event_types: list[str]
    enabled: bool
    disabled_reason: DisabledReason | None
    created_at: datetime


class WebhookWithSecret(WebhookOut):
    secret: str
    """Deliveries are signed with it."""


class _DeliveryOut(Model):
    event_id: UUID
    """Also sent as the header `webhook-id`, the same for each attempt."""
    type: str
    order_id: UUID | None
    state: State
    """`waiting` for an earlier event of the order."""
    cause: str | None
    """Why the last attempt failed, or why it was cancelled."""
    due_at: datetime
    """Time of the next attempt while the delivery is pending."""
    created_at: datetime
    settled_at: datetime | None


class WebhookDeliveryOut(_DeliveryOut):
    attempts: int


class AttemptOut(Model):
    at: datetime
    status_code: int | None
    """Null if no response arrived."""
    cause: str | None
    """Why it failed; null after a success."""
    duration_ms: int


class WebhookDeliveryWithAttempts(_DeliveryOut):
    attempts: list[AttemptOut]
    """The last hundred of the last 30 days, oldest first."""
    answer: str | None
    """The first 500 bytes of the last response's body."""


class RecoveryOut(Model):
    deliveries: int
    """How many are sent again."""
