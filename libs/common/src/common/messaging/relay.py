"""The relay: publishes recorded events from the outbox, in order per aggregate, and moves them to the event log.

A process runs one or several workers, which share the partitions of the outbox that are the process's own. Several
processes share all partitions. When one ends, the others take over its partitions within seconds.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any, Final

import asyncpg
import structlog
from aio_pika.abc import AbstractConnection

from common.db.database import EVENT_LOG_CHANNEL, OUTBOX_CHANNEL
from common.db.driver import DRIVER_ERRORS, SESSION, UNFIT, Endpoint, driver_dsn
from common.db.notify import Notifier, listen
from common.messaging import broker, event_log
from common.messaging.backlog_metrics import measuring_outbox
from common.messaging.outbox_partitions import PARTITIONS
from common.messaging.publisher import Publisher
from common.messaging.relay_share import own_partitions
from common.messaging.relay_worker import Worker
from common.messaging.stream_metrics import measuring_stream
from common.messaging.topology import declare_producer, kept_declared
from common.runtime.background import all_of, background, first_of
from common.runtime.health import Health
from common.settings import ServiceSettings

log = structlog.get_logger(__name__)

_SHARE_INTERVAL: Final = 1.0
_MAINTENANCE_INTERVAL: Final = 3600.0
_FROZEN: Final = "15000"
"""Milliseconds after which PostgreSQL ends the transaction of a frozen worker; longer than confirms may take."""


async def relay(settings: ServiceSettings, health: Health, stop: asyncio.Event) -> None:
    """The `relay` role: runs until `stop`, through outages of PostgreSQL and RabbitMQ."""
    measuring = measuring_outbox(Endpoint.of(settings), f"{settings.service}-relay-backlog")
    async with measuring, measuring_stream(settings):
        await Relay(settings, health).run(stop)


class Relay:
    def __init__(self, settings: ServiceSettings, health: Health) -> None:
        self._service = settings.service
        self._dsn = driver_dsn(settings.database_url.get_secret_value())
        self._endpoint = Endpoint.of(settings)
        self._amqp_url = settings.amqp_url.get_secret_value()
        self._streamed = settings.streamed
        self._retention_days = settings.outbox_retention_days
        self._count = min(settings.relay_partitions, len(PARTITIONS))
        # One for all workers: a type that the broker refuses is held by each of them.
        self._publisher = Publisher(settings.service)
        self._attached = False
        health.add("broker", self._check)
        health.add("postgres", self._ping)

    async def _check(self) -> None:
        if not self._attached:
            raise ConnectionError("not attached to the broker and the database")

    async def _ping(self) -> None:
        """On a connection of its own, because the session's may be busy with a batch."""
        connection = await asyncpg.connect(
            self._dsn, timeout=10, server_settings={"application_name": f"{self._service}-relay-ping", **SESSION}
        )
        try:
            if unfit := await connection.fetchval(UNFIT):
                raise ConnectionError(unfit)
        finally:
            connection.terminate()

    async def run(self, stop: asyncio.Event) -> None:
        await broker.run_with_reconnect(lambda: self._session(stop), stop, what=f"{self._service} relay")

    async def _session(self, stop: asyncio.Event) -> None:
        name = f"{self._service}-relay"

        def wake() -> None:
            for worker in workers:
                worker.wake()

        try:
            async with (
                broker.connect(self._amqp_url, name) as amqp,
                kept_declared(lambda: self._declare(amqp)),
                self._workers(amqp, name) as workers,
                background(partial(listen, OUTBOX_CHANNEL, wake, dsn=self._dsn, name=f"{name}-listen")),
                self._database(f"{name}-share") as database,
            ):
                await event_log.maintain(database, self._retention_days)
                self._attached = True
                log.info("relay attached", service=self._service)
                await all_of(self._share(database, workers, stop), *(worker.run(stop) for worker in workers))
        except DRIVER_ERRORS as error:
            raise ConnectionError(f"database: {type(error).__name__}") from error
        finally:
            self._attached = False

    async def _share(self, database: Any, workers: Sequence[Worker], stop: asyncio.Event) -> None:
        """Keeps the workers' partitions, and the event log's, up to date."""
        loop = asyncio.get_running_loop()
        maintained, shared = loop.time(), None
        while not stop.is_set():
            if (partitions := await own_partitions(database)) != shared:
                log.info("partitions shared", partitions=partitions)
                shared = partitions
                for number, worker in enumerate(workers):
                    worker.assign(partitions[number :: len(workers)])
            if loop.time() - maintained > _MAINTENANCE_INTERVAL:
                await event_log.maintain(database, self._retention_days)
                maintained = loop.time()
            await first_of(stop, within=_SHARE_INTERVAL)

    @contextlib.asynccontextmanager
    async def _workers(self, amqp: AbstractConnection, name: str) -> AsyncIterator[Sequence[Worker]]:
        async with contextlib.AsyncExitStack() as stack:
            # Readers of the log poll as well, so this may happen after the commit or, should we crash, not at all.
            notifier = Notifier(self._endpoint, name)
            stack.push_async_callback(notifier.close)
            yield [
                Worker(
                    self._publisher,
                    await stack.enter_async_context(self._database(name)),
                    amqp,
                    partial(notifier.notify, EVENT_LOG_CHANNEL),
                )
                for _ in range(self._count)
            ]

    async def _declare(self, amqp: AbstractConnection) -> None:
        channel = await amqp.channel()
        await declare_producer(channel, self._service, self._streamed)
        await channel.close()

    @contextlib.asynccontextmanager
    async def _database(self, name: str) -> AsyncIterator[Any]:
        connection = await asyncpg.connect(
            self._dsn,
            timeout=10,
            command_timeout=30,
            server_settings={
                "application_name": name,
                "idle_in_transaction_session_timeout": _FROZEN,
                "tcp_user_timeout": _FROZEN,  # a relay that is frozen while it receives is not idle
                # The oldest rows come from the primary keys, in order. What is known of a queue's size is always old,
                # and by it PostgreSQL would read and sort the whole backlog for each batch.
                "enable_seqscan": "off",
                "enable_bitmapscan": "off",
                "enable_nestloop": "off",
                "jit": "off",
            },
        )
        try:
            yield connection
        finally:
            connection.terminate()
