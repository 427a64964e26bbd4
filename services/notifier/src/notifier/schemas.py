"""Bodies of requests and responses."""

from datetime import datetime
from uuid import UUID

from pydantic import StrictBool

from common.web import Model, StrictModel
from notifier.models import Kind


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
