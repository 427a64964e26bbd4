"""A consumer with several inbound queues: who may receive from them, and how their number changes.

Each number of queues has queues of its own (`SERVICE.inbound.4.0` to `.4.3`; `SERVICE.inbound` is the only one of one).
Processes with another number stand by while one receives. The first that finds nobody receiving binds its own queues,
unbinds the others, and processes what those still hold before it receives anything from its own. An event that reached
both is processed once, at its place in the old queue, because of the inbox. So the order of each aggregate stays.
"""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Final

from aio_pika.abc import AbstractConnection
from aiormq.exceptions import ChannelLockedResource, ChannelNotFoundEntity
from pamqp.commands import Queue

from common.messaging.broker import raw_channel
from common.messaging.topology import inbound_queues, own_exchange, partition_exchange, replay_exchanges
from common.settings import QUEUE_PARTITIONS

_SEVERAL: Final = tuple(count for count in QUEUE_PARTITIONS if count > 1)


@asynccontextmanager
async def locked(connection: AbstractConnection, service: str) -> AsyncIterator[bool]:
    """Whether the block has the consumer's lock: an exclusive queue, which ends with the connection."""
    channel = await raw_channel(connection, confirms=False)
    lock = f"{service}.inbound.lock"
    try:
        await channel.queue_declare(lock, exclusive=True)
    except ChannelLockedResource:
        yield False
        return
    yield True
    await channel.queue_delete(lock)
    await channel.close()


async def are_received_otherwise(connection: AbstractConnection, service: str, partitions: int) -> bool:
    """Whether a process with another number of queues receives from them."""
    states = [await state(connection, queue) for queue in await _others(connection, service, partitions)]
    return any(found is not None and found.consumer_count for found in states)


async def leftovers(connection: AbstractConnection, service: str, partitions: int) -> list[str]:
    """Queues of other numbers that hold messages or are to be deleted."""
    inbound = f"{service}.inbound"
    others = await _others(connection, service, partitions)
    return [queue for queue in others if queue != inbound or await is_filled(connection, queue)]


async def is_filled(connection: AbstractConnection, queue: str) -> bool:
    """Whether messages wait in the queue. Those that a consumer holds do not count."""
    found = await state(connection, queue)
    return found is not None and bool(found.message_count)


async def unbind_others(
    connection: AbstractConnection, service: str, bindings: Collection[tuple[str, str]], partitions: int
) -> None:
    """Ends the flow into queues of other numbers. `SERVICE.inbound` stays, for a return to one queue."""
    inbound = f"{service}.inbound"
    channel = await raw_channel(connection, confirms=False)
    for count in _SEVERAL:
        if count != partitions:
            await channel.exchange_delete(partition_exchange(service, count))
    if partitions > 1:
        own = [(exchange, inbound) for exchange in (own_exchange(service), *replay_exchanges(bindings))]
        for source, routing_key in [*own, *bindings]:
            await channel.queue_unbind(inbound, source, routing_key)
    await channel.close()


async def delete(connection: AbstractConnection, service: str, queue: str) -> None:
    """Deletes an empty queue of another number. `SERVICE.inbound` stays."""
    if queue != f"{service}.inbound":
        channel = await raw_channel(connection, confirms=False)
        await channel.queue_delete(queue)
        await channel.close()


async def state(connection: AbstractConnection, queue: str) -> Queue.DeclareOk | None:
    """What the broker says of the queue; None if there is no such queue."""
    channel = await raw_channel(connection, confirms=False)  # of its own: a refusal closes it
    try:
        found = await channel.queue_declare(queue, passive=True)
    except ChannelNotFoundEntity:
        return None
    await channel.close()
    return found


async def _others(connection: AbstractConnection, service: str, partitions: int) -> list[str]:
    """The queues of other numbers that exist.

    A number's queues are created in the order of their names and deleted in the reverse one, so that the first of them
    says whether there are any.
    """
    found: list[str] = []
    for count in QUEUE_PARTITIONS:
        queues = inbound_queues(service, count)
        if count != partitions and await state(connection, queues[0]) is not None:
            found += reversed(queues)
    return found
