"""Bodies of requests and responses."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, Field, StrictBool

from common.web import Model, StrictModel
from notifier.models import EventType, Kind, State


class NotificationOut(Model):
    id: UUID
    kind: Kind
    title: str
    order_id: UUID | None
    read_at: datetime | None
    created_at: datetime


class UnreadCount(Model):
    count: int


class Preferences(StrictModel):
    """Which mails to receive. Notifications are listed in any case, and security mails are always sent."""

    order_updates: StrictBool
    welcome: StrictBool


class PreferencesOut(Model):
    order_updates: bool = True
    welcome: bool = True


class NewWebhook(StrictModel):
    url: Annotated[str, Field(max_length=2048, description="An https URL whose host has public addresses only.")]
    event_types: Annotated[
        list[EventType], Field(min_length=1, max_length=20), AfterValidator(lambda types: list(dict.fromkeys(types)))
    ]


class WebhookOut(Model):
    id: UUID
    url: str
    event_types: list[str]
    created_at: datetime


class WebhookWithSecret(WebhookOut):
    secret: str
    """Deliveries are signed with it."""


class WebhookDeliveryOut(Model):
    event_id: UUID
    """Also sent as the header `webhook-id`, the same for each attempt."""
    type: str
    state: State
    attempts: int
    cause: str | None
    """Why the last attempt failed."""
    due_at: datetime
    """Time of the next attempt while the delivery is pending."""
    created_at: datetime
    settled_at: datetime | None
