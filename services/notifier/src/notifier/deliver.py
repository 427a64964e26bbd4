"""The `deliver` role: what is due goes out, each channel by a deliverer of its own."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta

from common.db.database import Database
from common.runtime.health import Health
from common.security.service_client import service_client
from common.settings import resource
from notifier.delivery.worker import Deliverer
from notifier.mail.composer import Composer
from notifier.mail.queue import MailQueue
from notifier.mail.smtp import MailChannel
from notifier.retention import keep_house
from notifier.settings import NotifierSettings
from notifier.webhooks.channel import WebhookChannel
from notifier.webhooks.destinations import Destinations
from notifier.webhooks.queue import WebhookQueue
from notifier.webhooks.secrets import SecretBox


async def deliver(settings: NotifierSettings, health: Health, stop: asyncio.Event) -> None:
    """Runs until `stop`, through any outage of PostgreSQL, users, the mail server and receivers of webhooks."""
    async with contextlib.AsyncExitStack() as stack:
        database = Database.open(settings, role="deliver")
        stack.push_async_callback(database.close)
        health.add("postgres", database.ping)
        mails = await stack.enter_async_context(_mails(settings))
        webhooks = await stack.enter_async_context(_webhooks(settings))
        lease = timedelta(seconds=settings.delivery_lease)
        async with asyncio.TaskGroup() as group:
            house = group.create_task(keep_house(database))
            deliverers = (
                group.create_task(Deliverer(database, mails, lease=lease).run(stop)),
                group.create_task(Deliverer(database, webhooks, lease=lease).run(stop)),
            )
            await asyncio.wait(deliverers)
            house.cancel()


@contextlib.asynccontextmanager
async def _mails(settings: NotifierSettings) -> AsyncIterator[MailQueue]:
    async with service_client(
        settings, base_url=settings.users_url, scope="links:issue", resource=resource("users")
    ) as users:
        composer = Composer(sender=settings.sender, pages=settings.link_pages, users=users)
        channel = MailChannel(settings)
        try:
            yield MailQueue(composer, channel, slots=settings.smtp_connections)
        finally:
            await channel.close()


@contextlib.asynccontextmanager
async def _webhooks(settings: NotifierSettings) -> AsyncIterator[WebhookQueue]:
    slots = settings.webhook_connections
    destinations = Destinations(settings.webhook_allow, threads=slots)
    channel = WebhookChannel(destinations, connections=slots)
    try:
        yield WebhookQueue(channel, SecretBox(settings.webhook_key_bytes), slots=slots)
    finally:
        await channel.close()
        destinations.close()
