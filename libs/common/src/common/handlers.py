"""A consumer's handlers: which function takes the effect of which event, and the model it reads the data with."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar
from uuid import UUID

from pydantic import BaseModel, ValidationError
from sqlalchemy.ext.asyncio import AsyncSession

from common.events import Envelope, Undecodable, exchange_of, producer_of
from common.trace import traced

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


class Handlers:
    """Which function takes the effect of which event type. Handlers share the transaction and never commit."""

    def __init__(self) -> None:
        self._by_type: dict[str, tuple[type[BaseModel], Handler[BaseModel]]] = {}

    def on(self, event_type: str, model: type[T]) -> Callable[[Handler[T]], Handler[T]]:
        def register(handler: Handler[T]) -> Handler[T]:
            self._by_type[event_type] = (model, handler)  # type: ignore[assignment]
            return handler

        return register

    @property
    def bindings(self) -> list[tuple[str, str]]:
        return [(exchange_of(producer_of(event_type)), event_type) for event_type in self._by_type]

    def read(self, event: Envelope) -> Received[BaseModel] | None:
        """The event in the reader's model, `None` for a type nobody handles. Raises `Undecodable`."""
        if event.type not in self._by_type:
            return None
        try:
            data = self._by_type[event.type][0].model_validate_json(event.data)
        except ValidationError as error:
            fields = ", ".join(".".join(map(str, part["loc"])) for part in error.errors(include_input=False))
            raise Undecodable(f"data does not fit {event.type}: {fields}") from None
        return Received(event.id, event.type, event.subject, event.version, event.time, data, event.traceparent)

    async def handle(self, session: AsyncSession, event: Received[BaseModel]) -> None:
        with traced(request_id=str(event.id), traceparent=event.traceparent):
            await self._by_type[event.type][1](session, event)
