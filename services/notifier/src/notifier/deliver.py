"""The `deliver` role: one deliverer for mails and one for webhooks."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from typing import Final

from common.db.database import Database
from common.runtime.background import background, every
from common.runtime.health import Health
from common.security.service_client import service_client
from common.settings import resource
from notifier.delivery.worker import Deliverer
from notifier.mail.composer import Composer
from notifier.mail.limits import UnverifiedLimit
from notifier.mail.queue import MailQueue
from notifier.mail.smtp import MailChannel
from notifier.mail.unsubscribe_links import UnsubscribeLinks
from notifier.retention import CLEANUP_INTERVAL, run_cleanup
from notifier.settings import Settings
from notifier.webhooks.channel import WebhookChannel
from notifier.webhooks.destinations import Destinations
from notifier.webhooks.ending import end_webhooks
from notifier.webhooks.queue import WebhookQueue
from notifier.webhooks.secrets import SecretBox

_END_EVERY: Final = 1.0
"""Seconds between looks for disabled and deleted webhooks that have deliveries left."""


async def deliver(settings: Settings, health: Health, stop: asyncio.Event) -> None:
    """Runs until `stop` is set. Survives outages of PostgreSQL, users, the mail server and webhook receivers."""
    async with contextlib.AsyncExitStack() as stack:
        database = await stack.enter_async_context(Database(settings, role="deliver"))
        health.add("postgres", database.ping)
        mails = await stack.enter_async_context(_mails(settings))
        webhooks = await stack.enter_async_context(_webhooks(settings))
        lease = timedelta(seconds=settings.delivery_lease)
        cleanup = partial(every, CLEANUP_INTERVAL, partial(run_cleanup, database))
        endings = partial(every, _END_EVERY, partial(end_webhooks, database))
        async with background(cleanup, endings), asyncio.TaskGroup() as group:
            group.create_task(Deliverer(database, mails, lease=lease).run(stop))
            group.create_task(Deliverer(database, webhooks, lease=lease).run(stop))


@contextlib.asynccontextmanager
async def _mails(settings: Settings) -> AsyncIterator[MailQueue]:
    async with service_client(
        settings, base_url=settings.users_url, scope="links:issue", resource=resource("users")
    ) as users:
        key = settings.webhook_key_bytes
        links = UnsubscribeLinks(settings.public_url, key)
        composer = Composer(sender=settings.sender, pages=settings.link_pages, users=users, unsubscribe_links=links)
        limit = UnverifiedLimit(key, most=settings.unverified_mails)
        channel = MailChannel(settings)
        try:
            yield MailQueue(composer, channel, limit, slots=settings.smtp_connections)
        finally:
            await channel.close()


@contextlib.asynccontextmanager
async def _webhooks(settings: Settings) -> AsyncIterator[WebhookQueue]:
    slots = settings.webhook_connections
    destinations = Destinations(settings.webhook_allow)
    channel = WebhookChannel(destinations, connections=slots)
    try:
        yield WebhookQueue(channel, SecretBox(settings.webhook_key_bytes), slots=slots)
    finally:
        await channel.close()
        await destinations.close()
