"""HTTP bodies."""

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


class Preferences(StrictModel):
    """Which mails somebody wants. Notifications are listed all the same, and security mails always sent."""

    order_updates: StrictBool
    welcome: StrictBool


class PreferencesOut(Model):
    order_updates: bool = True
    welcome: bool = True


class NewWebhook(StrictModel):
    url: Annotated[str, Field(max_length=2048, description="https, at a public address.")]
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
    """What deliveries are signed with."""


class WebhookDeliveryOut(Model):
    event_id: UUID
    """Also the header `webhook-id`: the same for each try."""
    type: str
    state: State
    attempts: int
    cause: str | None
    """Why the last try did not succeed."""
    due_at: datetime
    """When it is tried next, while it is pending."""
    created_at: datetime
    settled_at: datetime | None
