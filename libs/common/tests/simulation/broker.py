"""RabbitMQ for the simulation: one producer's exchange, one consumer's quorum queues.

A message is stored before it is confirmed. A delivery that was not acknowledged when its connection ended returns to
the queue, before those that were never delivered, with its count. An expired or refused message may be stored twice.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from copy import copy
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Final

from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from .loop import OUTSIDE

if TYPE_CHECKING:
    from .channel import Channel, Connection

INBOUND: Final = "mail.inbound"
Receive = Callable[[DeliveredMessage], Awaitable[None]]


@dataclass
class Message:
    body: bytes
    properties: Basic.Properties
    exchange: str
    routing_key: str
    returns: int = 0


@dataclass(eq=False)
class Receiver:
    """A consumer, in the broker's words."""

    channel: "Channel"
    tag: str
    queue: str
    prefetch: int
    receive: Receive
    unacknowledged: int = 0


@dataclass
class Queue:
    returned: deque[Message] = field(default_factory=deque)
    fresh: deque[Message] = field(default_factory=deque)
    receivers: deque[Receiver] = field(default_factory=deque)

    def __len__(self) -> int:
        return len(self.returned) + len(self.fresh)


class Broker:
    def __init__(self, random: Random, delay: Callable[[], float]) -> None:
        self.random = random
        self.delay = delay
        self.queues = {INBOUND: Queue(), f"{INBOUND}.parked": Queue()}
        self.connections: list[Connection] = []
        self.travelling = 0
        """Frames and messages that are neither in a queue nor with a receiver: on their way, or in a retry queue."""
        self.refusals = 0.0
        """The share of messages that the broker refuses."""
        self.is_down = False

    @property
    def is_idle(self) -> bool:
        held = any(channel.held for connection in self.connections for channel in connection.channels)
        return not self.travelling and not held and not any(self.queues.values())

    def publish(self, message: Message) -> bool:
        """Returns whether it is confirmed. If it is refused, a queue may have it nevertheless."""
        if self.random.random() < self.refusals:
            if self.random.random() < 0.5:
                self._store(message)
            return False
        self._store(message)
        return True

    def _store(self, message: Message) -> None:
        if ".retry." in message.routing_key:
            self.later(int(message.properties.expiration or 0) / 1000, lambda: self._expire(message))
        else:
            queue = message.routing_key if message.routing_key in self.queues else INBOUND
            self.queues[queue].fresh.append(message)
            self.deliver(queue)

    def _expire(self, message: Message) -> None:
        properties = copy(message.properties)
        properties.expiration = None
        for _ in range(1 + (self.random.random() < 0.05)):
            self._store(Message(message.body, properties, "mail.retry", INBOUND))

    def deliver(self, name: str) -> None:
        queue = self.queues[name]
        while queue and (receiver := self._next(queue)):
            message = (queue.returned or queue.fresh).popleft()
            receiver.unacknowledged += 1
            receiver.channel.deliver(receiver, message)

    @staticmethod
    def _next(queue: Queue) -> Receiver | None:
        """In turn, those that may receive more."""
        for _ in range(len(queue.receivers)):
            queue.receivers.rotate(-1)
            if queue.receivers[-1].unacknowledged < queue.receivers[-1].prefetch:
                return queue.receivers[-1]
        return None

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        self.travelling += 1

        def arrive() -> None:
            self.travelling -= 1
            act()

        asyncio.get_running_loop().call_later(seconds, arrive, context=OUTSIDE.context)
