"""A consumer's handlers: which function processes which event type, and the model that it reads the data with."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Generic, TypeVar
from uuid import UUID

from pydantic import BaseModel, ValidationError
from sqlalchemy.ext.asyncio import AsyncSession

from common.messaging.aggregate_versions import Aggregate
from common.messaging.cloudevents import Envelope, Undecodable, aggregate_of, exchange_of, producer_of
from common.observability.trace import traced

T = TypeVar("T", bound=BaseModel)

_LONGEST_CAUSE: Final = 1000


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
    """The trace that the event's processing belongs to."""


Handler = Callable[[AsyncSession, Received[T]], Awaitable[None]]
BatchHandler = Callable[[AsyncSession, Sequence[Received[T]]], Awaitable[None]]


class EventHandlers:
    """Maps event types to functions. They share the batch's transaction and never commit."""

    def __init__(self, *, in_order: Collection[str] = ()) -> None:
        """`in_order` names kinds of aggregates (`orders.order`) whose every event this consumer receives, even events
        without a handler: only then can it see that one is missing. Later events are deferred until the missing one was
        processed or parked, or a little longer than all retry delays. The first events of an aggregate are only kept
        in order if its id is a UUIDv7.

        Events of other kinds are processed as they arrive. Handlers compare versions in any case, because a gap may
        stay.
        """
        self.in_order = frozenset(in_order)
        self._models: dict[str, type[BaseModel]] = {}
        self._single: dict[str, Handler[BaseModel]] = {}
        self._batch: dict[str, BatchHandler[BaseModel]] = {}

    def on(self, event_type: str, model: type[T]) -> Callable[[Handler[T]], Handler[T]]:
        def register(handler: Handler[T]) -> Handler[T]:
            self._models[event_type] = model
            self._single[event_type] = handler  # type: ignore[assignment]
            return handler

        return register

    def on_batch(self, models: Mapping[str, type[T]]) -> Callable[[BatchHandler[T]], BatchHandler[T]]:
        """Registers a function that processes many events of several types at once, in few statements.

        It receives the batch's events in the order of their arrival, after all other handlers of the batch; one event
        at a time where the batch failed. It keeps an aggregate's order only if it handles all of the aggregate's types.
        """

        def register(handler: BatchHandler[T]) -> BatchHandler[T]:
            self._models |= models
            self._batch |= dict.fromkeys(models, handler)  # type: ignore[arg-type]
            return handler

        return register

    def __contains__(self, event_type: str) -> bool:
        return event_type in self._models

    @property
    def bindings(self) -> list[tuple[str, str]]:
        """The queue's bindings: (exchange, routing key)."""
        keys = [event_type for event_type in self._models if aggregate_of(event_type) not in self.in_order]
        keys += [f"{kind}.#" for kind in sorted(self.in_order)]
        return [(exchange_of(producer_of(key)), key) for key in keys]

    @property
    def types(self) -> list[str]:
        return sorted(self._models)

    def aggregate_in_order(self, event: Envelope) -> Aggregate | None:
        """The event's aggregate, if this consumer keeps its order."""
        kind = aggregate_of(event.type)
        return (kind, event.subject) if kind in self.in_order else None

    def decode(self, event: Envelope) -> Received[BaseModel] | None:
        """The event with its data as the handler's model; None without a handler. Raises `Undecodable`."""
        model = self._models.get(event.type)
        if model is None:
            return None
        try:
            data = model.model_validate_json(event.data)
        except ValidationError as error:
            fields = ", ".join(".".join(map(str, part["loc"])) for part in error.errors(include_input=False))
            raise Undecodable(f"data does not fit {event.type}: {fields}"[:_LONGEST_CAUSE]) from None
        except Exception as error:  # noqa: BLE001 - from a model's own validator
            raise Undecodable(f"data does not fit {event.type}: {type(error).__name__}") from None
        return Received(event.id, event.type, event.subject, event.version, event.time, data, event.traceparent)

    async def handle(self, session: AsyncSession, *events: Received[BaseModel]) -> None:
        batches: dict[BatchHandler[BaseModel], list[Received[BaseModel]]] = {}
        for event in events:
            if event.type in self._batch:
                batches.setdefault(self._batch[event.type], []).append(event)
            else:
                with traced(request_id=str(event.id), traceparent=event.traceparent):
                    await self._single[event.type](session, event)
        for handler, batch in batches.items():
            await handler(session, batch)
