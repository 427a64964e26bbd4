"""Receives a consumer's messages over one connection: from one queue, or from its share of several.

Of several queues, each has one active process at a time, in the order in which processes came to it, so the first one
would be active in all. A process that is active in more than its share goes to the end of the line in some of them.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from math import ceil
from typing import Any, Final

from aio_pika.abc import AbstractConnection
from aiormq.abc import DeliveredMessage
from prometheus_client import Gauge

from common.messaging import partitions
from common.messaging.deliveries import Deliveries
from common.messaging.partitions import QueuesInUse
from common.messaging.topology import inbound_queues
from common.observability.log_limit import limited_logger
from common.runtime.background import first_of

log = limited_logger(__name__)

ACTIVE: Final = Gauge("waybill_consumer_active_queues", "Of several queues, those that this process receives from.")
STANDS_BY: Final = Gauge(
    "waybill_consumer_stands_by", "1 while processes with another number of queues keep this one from receiving."
)
SHARING_INTERVAL: Final = 2.0
_PAUSE: Final = 1.0
_SETTLING: Final = 1.0
"""Seconds after unbinding a queue in which messages may arrive that were routed to it before."""

Process = Callable[[Sequence[DeliveredMessage], Deliveries], Awaitable[None]]
"""Processes and acknowledges a batch. Returns without that at a stop."""


class Receiver:
    def __init__(
        self,
        connection: AbstractConnection,
        service: str,
        bindings: Collection[tuple[str, str]],
        *,
        count: int,
        process: Process,
        lost: asyncio.Event,
    ) -> None:
        """`count` is the number of queues. `lost` is set when this receiver has to be replaced by another one."""
        self._connection = connection
        self._service = service
        self._inbound = f"{service}.inbound"
        self._bindings = bindings
        self._count = count
        self._process = process
        self._lost = lost
        self._queues = [Deliveries(connection, name, lost) for name in inbound_queues(service, count)]
        # Its messages are only stored.
        self._parked = Deliveries(connection, f"{service}.inbound.parked", lost, is_careful=False)
        self._is_bound = False
        self.is_attached = False
        self.stands_by = False
        """Whether processes with another number of queues receive, as in the middle of a rollout."""

    async def keep_bound(self) -> None:
        """Binds again what somebody unbound, unless another process decides about that."""
        if not self.is_attached:
            return
        await self._bind(self._count)
        if self._count > 1 and await partitions.is_filled(self._connection, self._inbound):
            # Somebody else bound it, such as release 0.1.0. The next receiver processes its messages.
            log.error("messages in a queue that is not in use", queue=self._inbound)
            self._lost.set()

    async def attach(self, is_ready: Callable[[], Awaitable[bool]], stop: asyncio.Event) -> None:
        """Binds the queues and begins to receive, or pauses: while it stands by, or until `is_ready` returns True."""
        if not self._is_bound or await is_ready():
            async with partitions.locked(self._connection, self._service) as is_locked:
                found = await partitions.queues_in_use(self._connection, self._service)
                self._stand_by(not is_locked or await self._are_received_otherwise(found))
                if not self.stands_by:
                    await self._bind(len(found.numbered) if found.are_several else 1)
                    self._is_bound = True
                    if await is_ready():
                        await self._change_number(found, stop)
                        await self._begin(stop)
                        return
        await first_of(stop, self._lost, within=_PAUSE)

    async def _are_received_otherwise(self, found: QueuesInUse) -> bool:
        """Whether a process with another number of queues receives."""
        if not found.are_of(self._count):
            return await partitions.are_received(self._connection, [self._inbound, *found.numbered])
        return self._count > 1 and await partitions.are_received(self._connection, [self._inbound])

    async def _bind(self, number: int) -> None:
        if number > 1:
            await partitions.bind_several(self._connection, self._service, self._bindings, number)
        else:
            await partitions.bind_one(self._connection, self._service, self._bindings)

    def _stand_by(self, stands_by: bool) -> None:
        if stands_by and not self.stands_by:
            log.info("standing by for another process", service=self._service, queues=self._count)
        self.stands_by = stands_by
        STANDS_BY.set(stands_by)

    async def receive(self, stop: asyncio.Event) -> None:
        """Until `stop` or a loss."""
        await _all_or_first_error(self._lost, *(self._receive(each, stop) for each in (*self._queues, self._parked)))

    async def share(self) -> None:
        """Hands over queues while this process is active in more than its share.

        Each attached process receives from the parked queue, so its consumers are the consumer's processes.
        """
        active = [deliveries for deliveries in self._queues if deliveries.is_active]
        ACTIVE.set(len(active))
        if self._count == 1 or not self.is_attached:
            return
        if (parked := await partitions.state(self._connection, self._parked.queue)) is not None:
            for deliveries in active[ceil(self._count / max(1, parked.consumer_count or 0)) :]:
                deliveries.is_wanted.set()

    async def _begin(self, stop: asyncio.Event) -> None:
        if not self._is_over(stop):
            for deliveries in (*self._queues, self._parked):
                await deliveries.begin()
            self.is_attached = True
            log.info("consumer attached", service=self._service, queues=self._count)

    async def _change_number(self, found: QueuesInUse, stop: asyncio.Event) -> None:
        """Processes what queues that are not in use hold. Called with the lock, when nobody receives from them.

        A change that was cut off is first ended in its direction. From several queues to another number of several the
        events flow through `SERVICE.inbound` in between.
        """
        is_filled = found.are_several and await partitions.is_filled(self._connection, self._inbound)
        if is_filled and not await self._drain([self._inbound], stop):
            return
        if found.are_of(self._count):
            return
        log.warning("changing the number of queues", old=len(found.numbered) or 1, new=self._count)
        await self._bind(1)
        if not await self._drain(found.numbered[::-1], stop, delete=True) or self._count == 1:
            return
        await self._bind(self._count)
        await self._drain([self._inbound], stop)

    async def _drain(self, queues: Sequence[str], stop: asyncio.Event, *, delete: bool = False) -> bool:
        """Processes what the queues hold, which are no longer bound. Returns False if it was cut off."""
        if queues:
            await first_of(stop, self._lost, within=_SETTLING)
        for queue in queues:
            deliveries = Deliveries(self._connection, queue, self._lost)
            await deliveries.begin()
            while not await deliveries.is_drained():
                if batch := await deliveries.next_batch(stop, within=_PAUSE):
                    await self._process(batch, deliveries)
                if self._is_over(stop):
                    return False
            await deliveries.end()
            if delete:
                await partitions.delete(self._connection, queue)
        return not self._is_over(stop)

    def _is_over(self, stop: asyncio.Event) -> bool:
        return stop.is_set() or self._lost.is_set()

    async def _receive(self, deliveries: Deliveries, stop: asyncio.Event) -> None:
        while not self._is_over(stop):
            if batch := await deliveries.next_batch(stop):
                await self._process(batch, deliveries)
            elif deliveries.is_wanted.is_set():
                log.info("queue handed over", queue=deliveries.queue)
                await deliveries.hand_over()


async def _all_or_first_error(lost: asyncio.Event, *works: Coroutine[Any, Any, None]) -> None:
    """Returns when all have ended. If one fails, `lost` ends the others and its error is raised."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        if not all(task.done() for task in tasks):
            lost.set()
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
