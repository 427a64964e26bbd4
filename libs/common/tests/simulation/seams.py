"""Puts the simulation's clock, store and broker in the place of the real ones, around the code as it is."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from math import inf
from types import SimpleNamespace
from typing import Any

import pytest

from common.messaging import (
    aggregate_versions,
    batch,
    broker,
    consumer,
    deferred,
    deliveries,
    inbox,
    lower_bound,
    outbox_partitions,
    parked,
    partitions,
    publisher,
    receiver,
    relay,
    relay_worker,
)
from common.observability import history
from common.runtime import background
from waybill_dev.history.reading import Step

from . import statements
from .channel import Channel, Connection
from .loop import PROCESS
from .store import Session
from .world import World


@contextmanager
def simulated() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((publisher, "monotonic"), (lower_bound, "monotonic")):
            patch.setattr(module, name, _time)
        patch.setattr(lower_bound, "_SWEEP", inf)  # it would hide a row that the bound has passed
        for module in (publisher, deferred):
            patch.setattr(module, "perf_counter", _time)
        for module in (relay, relay_worker, publisher, consumer, receiver, batch, broker, background):
            patch.setattr(module, "log", _Silence())
        patch.setattr(history, "note", _note)
        for name in ("lock", "oldest", "move"):
            patch.setattr(outbox_partitions, name, getattr(statements, name))
        for module in (aggregate_versions, consumer):
            patch.setattr(module, "advance", statements.advance)
        for name in ("defer", "release"):
            patch.setattr(deferred, name, getattr(statements, name))
        for name in ("park", "close_processed", "find"):
            patch.setattr(parked, name, getattr(statements, name))
        patch.setattr(batch, "first_deliveries", statements.first_deliveries)
        patch.setattr(broker, "aio_pika", SimpleNamespace(connect=_connect))
        patch.setattr(broker, "raw_channel", _channel)
        patch.setattr(relay_worker, "ConfirmedPublish", lambda channel: channel)
        patch.setattr(relay.Relay, "_declare", _nothing)
        patch.setattr(relay.Relay, "_database", _database)
        patch.setattr(relay, "event_log", SimpleNamespace(maintain=_nothing))
        patch.setattr(relay, "own_partitions", _own_partitions)
        patch.setattr(relay, "listen", _listen)
        patch.setattr(relay, "Notifier", _Notifier)
        patch.setattr(consumer, "declare_queues", _nothing)
        patch.setattr(deliveries, "raw_channel", _channel)
        patch.setattr(partitions, "locked", _locked)
        patch.setattr(partitions, "queues_in_use", _one_queue)
        patch.setattr(partitions, "bind_one", _nothing)
        patch.setattr(inbox, "maintain", _nothing)
        yield patch


class _Silence:
    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


class _Notifier:
    """Nobody reads the simulated log while it grows."""

    def __init__(self, *_: Any) -> None: ...

    def notify(self, channel: str) -> None: ...

    async def close(self) -> None: ...


def _time() -> float:
    return asyncio.get_running_loop().time()


def _note(step: str, events: history.Steps, **facts: str) -> None:
    world, name = World.current, PROCESS.get().name
    for event, subject, version in events:
        world.steps.append(
            Step(len(world.steps), name, step, str(event), str(subject), version, facts.get("consumer", ""))
        )


async def _nothing(*_: object) -> bool:
    return False


async def _one_queue(*_: object) -> partitions.QueuesInUse:
    return partitions.QueuesInUse(are_several=False, numbered=[])


@asynccontextmanager
async def _locked(*_: object) -> AsyncIterator[bool]:
    yield True


async def _connect(*_: object, **__: object) -> Connection:
    await asyncio.sleep(World.current.broker.delay())
    if World.current.broker.is_down:
        raise ConnectionError("the broker is down")
    return Connection(World.current.broker)


async def _channel(connection: Connection, *, confirms: bool) -> Channel:
    await asyncio.sleep(connection.broker.delay())
    if not connection.is_open:
        raise ConnectionError("connection lost")
    return Channel(connection)


@asynccontextmanager
async def _database(_: relay.Relay, name: str) -> AsyncIterator[Session]:
    session = await World.current.store.connect()
    try:
        yield session
    finally:
        session.end()


async def _own_partitions(session: Session) -> tuple[int, ...]:
    """The processes may disagree: in half of the worlds a relay claims all partitions for some time."""
    await session.run(_nothing)
    return World.current.share()


async def _listen(_: str, wake: Callable[[], None], **__: Any) -> None:
    listener = PROCESS.get(), wake
    World.current.listeners.append(listener)
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        if listener in World.current.listeners:
            World.current.listeners.remove(listener)
