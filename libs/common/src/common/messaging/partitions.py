"""Which queues a consumer receives from, one or several, and how their number changes.

The queues of several are `SERVICE.inbound.0` and so on, whatever their number is. The mark, an exchange without
bindings, says which side a change that was cut off has to process first:

- With it, several queues are in use. What `SERVICE.inbound` still holds is older and comes first.
- Without it, `SERVICE.inbound` is in use. What the others still hold is older and comes first; then they are deleted.

So the mark is set before the first event is bound to several queues, and removed before the first one is bound to
`SERVICE.inbound` again. In between both receive the events, and the inbox processes each once, at its older place.
"""

from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aio_pika.abc import AbstractConnection
from aiormq.exceptions import ChannelLockedResource, ChannelNotFoundEntity
from pamqp.commands import Queue

from common.messaging.broker import raw_channel
from common.messaging.topology import bind_consumer, own_exchange, partition_exchange, replay_exchanges


@dataclass(frozen=True, slots=True)
class QueuesInUse:
    """What the broker says of a consumer's queues."""

    are_several: bool
    """Whether the mark is set."""
    numbered: list[str]
    """The existing queues `SERVICE.inbound.0` and so on, by number."""

    def are_of(self, number: int) -> bool:
        """Whether no change is needed for processes with this number of queues."""
        return (self.are_several, len(self.numbered)) == ((True, number) if number > 1 else (False, 0))


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


async def queues_in_use(connection: AbstractConnection, service: str) -> QueuesInUse:
    channel = await raw_channel(connection, confirms=False)
    try:
        await channel.exchange_declare(_mark(service), passive=True)
    except ChannelNotFoundEntity:
        are_several = False
    else:
        are_several = True
        await channel.close()
    return QueuesInUse(are_several, await numbered_queues(connection, service))


async def numbered_queues(connection: AbstractConnection, service: str) -> list[str]:
    """Those that exist. They are created upwards and deleted downwards, so the first that is missing ends them."""
    channel, found = await raw_channel(connection, confirms=False), list[str]()
    while True:
        queue = f"{service}.inbound.{len(found)}"
        try:
            await channel.queue_declare(queue, passive=True)
        except ChannelNotFoundEntity:  # which closes the channel
            return found
        found.append(queue)


async def are_received(connection: AbstractConnection, queues: Iterable[str]) -> bool:
    """Whether a process receives from one of the queues."""
    states = [await state(connection, queue) for queue in queues]
    return any(found is not None and found.consumer_count for found in states)


async def is_filled(connection: AbstractConnection, queue: str) -> bool:
    """Whether messages wait in the queue. Those that a consumer holds do not count."""
    found = await state(connection, queue)
    return found is not None and bool(found.message_count)


async def bind_several(
    connection: AbstractConnection, service: str, bindings: Collection[tuple[str, str]], number: int
) -> None:
    """Sets the mark, and lets the events flow into `number` queues instead of `SERVICE.inbound`."""
    channel = await raw_channel(connection, confirms=False)
    await channel.exchange_declare(_mark(service), exchange_type="fanout", durable=True)
    await bind_consumer(connection, service, bindings, number)
    inbound = f"{service}.inbound"
    own = [(exchange, inbound) for exchange in (own_exchange(service), *replay_exchanges(bindings))]
    for source, routing_key in [*own, *bindings]:
        await channel.queue_unbind(inbound, source, routing_key)
    await channel.close()


async def bind_one(connection: AbstractConnection, service: str, bindings: Collection[tuple[str, str]]) -> None:
    """Removes the mark, and lets the events flow into `SERVICE.inbound` instead of several queues."""
    channel = await raw_channel(connection, confirms=False)
    await channel.exchange_delete(_mark(service))
    await bind_consumer(connection, service, bindings)
    await channel.exchange_delete(partition_exchange(service))
    await channel.close()


async def delete(connection: AbstractConnection, queue: str) -> None:
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


def _mark(service: str) -> str:
    return f"{service}.inbound.several"
