"""A consumer's handlers: which function takes the effect of which event, and the model it reads the data with."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar
from uuid import UUID

from pydantic import BaseModel, ValidationError
from sqlalchemy.ext.asyncio import AsyncSession

from common.messaging.aggregate_versions import Aggregate
from common.messaging.cloudevents import Envelope, Undecodable, aggregate_of, exchange_of, producer_of
from common.observability.trace import traced

T = TypeVar("T", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Received(Generic[T]):
    """An event as a handler gets it: the envelope's attributes, and the data as the reader's own model."""

    id: UUID
    type: str
    subject: str
    version: int
    time: datetime
    data: T
    traceparent: str | None = None
    """What is done about the event belongs to this."""


Handler = Callable[[AsyncSession, Received[T]], Awaitable[None]]
BatchHandler = Callable[[AsyncSession, Sequence[Received[T]]], Awaitable[None]]


class EventHandlers:
    """Which function takes the effect of which event type. Handlers share the transaction and never commit."""

    def __init__(self, *, in_order: Collection[str] = ()) -> None:
        """`in_order` names kinds of aggregates (`orders.order`) of which this consumer gets every event, whether it
        handles it or not. Only so can it see that one is missing: what comes behind is deferred then, through the
        retry delays, and taken when the missing one has come or all of them are over.

        The rest is taken as it comes. Handlers compare versions in any case: a gap may have to be left behind.
        """
        self.in_order = frozenset(in_order)
        self._models: dict[str, type[BaseModel]] = {}
        self._single: dict[str, Handler[BaseModel]] = {}
        self._batch: dict[str, BatchHandler[BaseModel]] = {}

    def on(self, event_type: str, model: type[T]) -> Callable[[Handler[T]], Handler[T]]:
        def register(handler: Handler[T]) -> Handler[T]:
            self._add({event_type: model})
            self._single[event_type] = handler  # type: ignore[assignment]
            return handler

        return register

    def on_batch(self, models: Mapping[str, type[T]]) -> Callable[[BatchHandler[T]], BatchHandler[T]]:
        """For a function that takes many events of several types at once, in few statements.

        It gets those of a batch of deliveries in the order of their arrival, after the effects of all other events; a
        list of one where the batch failed. To keep an aggregate's order, it takes all types that are handled of it.
        """

        def register(handler: BatchHandler[T]) -> BatchHandler[T]:
            self._add(models)
            self._batch |= dict.fromkeys(models, handler)  # type: ignore[arg-type]
            return handler

        return register

    def _add(self, models: Mapping[str, type[BaseModel]]) -> None:
        self._models |= models

    @property
    def bindings(self) -> list[tuple[str, str]]:
        """Of the queue: exchanges, with the routing keys."""
        keys = [event_type for event_type in self._models if aggregate_of(event_type) not in self.in_order]
        keys += [f"{kind}.#" for kind in sorted(self.in_order)]
        return [(exchange_of(producer_of(key)), key) for key in keys]

    @property
    def types(self) -> list[str]:
        return sorted(self._models)

    def aggregate_in_order(self, event: Envelope) -> Aggregate | None:
        """Whose order is kept, where it is."""
        kind = aggregate_of(event.type)
        return (kind, event.subject) if kind in self.in_order else None

    def read(self, event: Envelope) -> Received[BaseModel] | None:
        """The event in the reader's model, `None` for a type nobody handles. Raises `Undecodable`."""
        model = self._models.get(event.type)
        if model is None:
            return None
        try:
            data = model.model_validate_json(event.data)
        except ValidationError as error:
            fields = ", ".join(".".join(map(str, part["loc"])) for part in error.errors(include_input=False))
            raise Undecodable(f"data does not fit {event.type}: {fields}") from None
        return Received(event.id, event.type, event.subject, event.version, event.time, data, event.traceparent)

    async def handle(self, session: AsyncSession, *events: Received[BaseModel]) -> None:
        together: dict[BatchHandler[BaseModel], list[Received[BaseModel]]] = {}
        for event in events:
            if event.type in self._batch:
                together.setdefault(self._batch[event.type], []).append(event)
            else:
                with traced(request_id=str(event.id), traceparent=event.traceparent):
                    await self._single[event.type](session, event)
        for handler, theirs in together.items():
            await handler(session, theirs)
