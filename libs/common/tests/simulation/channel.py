"""The driver's connections and channels for the simulation, each with the broker's side of it."""

import asyncio
from collections.abc import Callable, Iterable
from copy import copy
from typing import Any, Final

from aiormq.abc import DeliveredMessage
from aiormq.exceptions import ChannelInvalidStateError, DeliveryError
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from .broker import Broker, Message, Receive, Receiver
from .loop import PROCESS


class Connection:
    """Two pipes, in each of which frames keep their order."""

    def __init__(self, broker: Broker) -> None:
        self.broker: Final = broker
        self.process: Final = PROCESS.get()
        self.channels: list[Channel] = []
        self.is_cut = False
        self.is_open = True
        """At the client, who may notice the cut late."""
        self._last = {True: 0.0, False: 0.0}
        broker.connections.append(self)

    def send(self, act: Callable[[], None], *, up: bool = True) -> None:
        """`up` is towards the broker."""
        now = asyncio.get_running_loop().time()
        self._last[up] = max(self._last[up] + 1e-6, now + self.broker.delay())
        self.broker.later(self._last[up] - now, lambda: None if self.is_cut else act())

    def cut(self, noticed_after: float) -> None:
        """Nothing arrives any more on either side. The broker notices at once, the client later."""
        if not self.is_cut:
            self.is_cut = True
            self.broker.connections.remove(self)
            for channel in self.channels:
                channel.end()
            self.broker.later(noticed_after, self._close)

    def _close(self) -> None:
        self.is_open = False
        for channel in self.channels:
            channel.fail(ConnectionResetError("connection lost"))

    async def close(self) -> None:
        """Frames that were sent before still arrive."""
        closed = asyncio.get_running_loop().create_future()
        self.send(lambda: self.cut(self.broker.delay()))
        for channel in self.channels:
            channel.closing.add_done_callback(lambda _: None if closed.done() else closed.set_result(None))
        if self.channels:
            await closed

    async def ready(self) -> None:
        await asyncio.sleep(self.broker.delay())


class Channel:
    """What the code uses of aiormq's channel, and the broker's side of it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.closing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.on_consumer_cancel_callbacks: set[Any] = set()
        self.held: dict[int, tuple[Receiver, Message]] = {}
        """Unacknowledged deliveries, by their tags."""
        self._tag = 0
        self._prefetch = 0
        self._receivers: dict[str, Receiver] = {}
        self._calls: dict[asyncio.Future[Any], None] = {}
        connection.channels.append(self)

    @property
    def is_closed(self) -> bool:
        return self.closing.done()

    async def close(self) -> None:
        await self._call(self.end)
        if not self.closing.done():
            self.closing.set_result(None)

    async def basic_qos(self, *, prefetch_count: int) -> None:
        def act() -> None:
            self._prefetch = prefetch_count

        await self._call(act)

    async def basic_consume(self, queue: str, receive: Receive, *, consumer_tag: str) -> None:
        def act() -> None:
            receiver = Receiver(self, consumer_tag, queue, self._prefetch, receive)
            self._receivers[consumer_tag] = receiver
            self._broker.queues[queue].receivers.append(receiver)
            self._broker.deliver(queue)

        await self._call(act)

    async def basic_cancel(self, tag: str) -> None:
        await self._call(lambda: self._remove(self._receivers.pop(tag)))

    async def basic_ack(self, tag: int, *, multiple: bool) -> None:
        assert multiple
        self._check()
        self.connection.send(lambda: self._acknowledge([each for each in self.held if each <= tag]))

    async def basic_publish(
        self,
        body: bytes,
        *,
        exchange: str,
        routing_key: str,
        properties: Basic.Properties,
        mandatory: bool = True,  # noqa: ARG002 - each has a queue
        timeout: float | None = None,  # noqa: ASYNC109 - the driver's
    ) -> None:
        message = Message(body, copy(properties), exchange, routing_key)
        async with asyncio.timeout(timeout):
            if not await self._call(lambda: self._broker.publish(message)):
                raise DeliveryError(None, Basic.Nack())

    publish = basic_publish

    @property
    def channel(self) -> "Channel":
        """It is its own `ConfirmedPublish`."""
        return self

    def deliver(self, receiver: Receiver, message: Message) -> None:
        self._tag += 1
        self.held[self._tag] = receiver, message
        properties = copy(message.properties)
        properties.headers = dict(properties.headers or {})
        if message.returns:
            properties.headers["x-delivery-count"] = message.returns
        delivered = DeliveredMessage(
            Basic.Deliver(receiver.tag, self._tag, message.returns > 0, message.exchange, message.routing_key),
            ContentHeader(properties=properties, body_size=len(message.body)),
            message.body,
            self,  # type: ignore[arg-type]
        )
        self.connection.send(lambda: self._arrive(receiver, delivered), up=False)

    def end(self) -> None:
        """The broker's side: what was not acknowledged returns to its queue."""
        for receiver in self._receivers.values():
            self._remove(receiver)
        returned: dict[str, list[Message]] = {}
        for receiver, message in self.held.values():
            message.returns += 1
            returned.setdefault(receiver.queue, []).append(message)
        self.held.clear()
        for queue, messages in returned.items():
            self._broker.queues[queue].returned.extend(messages)
            self._broker.deliver(queue)

    def fail(self, error: Exception) -> None:
        """The client's side."""
        if not self.closing.done():
            self.closing.set_exception(error)
            self.closing.exception()
        for call in self._calls:
            if not call.done():
                call.set_exception(error)

    @property
    def _broker(self) -> Broker:
        return self.connection.broker

    async def _call(self, act: Callable[[], Any]) -> Any:
        self._check()
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._calls[answer] = None

        def respond(result: Any) -> None:
            if not answer.done():
                answer.set_result(result)

        def arrive() -> None:
            result = act()
            self.connection.send(lambda: respond(result), up=False)

        self.connection.send(arrive)
        try:
            return await answer
        finally:
            del self._calls[answer]

    def _check(self) -> None:
        if self.is_closed:
            raise ChannelInvalidStateError("closed")

    def _remove(self, receiver: Receiver) -> None:
        self._broker.queues[receiver.queue].receivers.remove(receiver)

    def _acknowledge(self, tags: Iterable[int]) -> None:
        for tag in tags:
            receiver, _ = self.held.pop(tag)
            receiver.unacknowledged -= 1
        for queue in self._broker.queues:
            self._broker.deliver(queue)

    def _arrive(self, receiver: Receiver, message: DeliveredMessage) -> None:
        """In the process's own turn: a frozen process receives later, a dead one never."""
        asyncio.get_running_loop().call_soon(
            _complete, receiver.receive(message), context=self.connection.process.context
        )


def _complete(receiving: Any) -> None:
    try:
        receiving.send(None)
    except StopIteration:
        return
    raise AssertionError("a receiver that waits would change the order of deliveries")
