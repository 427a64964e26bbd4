"""What a deliverer needs of a channel: its queue of due deliveries, and a way to send them."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar, Generic, Protocol, TypeVar
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from notifier.delivery.errors import Answer
from notifier.models import State


class Claim(Protocol):
    """A delivery that this process holds until its lease ends."""

    @property
    def key(self) -> Hashable: ...
    @property
    def attempts(self) -> int:
        """Including this one."""
        ...

    @property
    def event_id(self) -> UUID: ...
    @property
    def created_at(self) -> datetime: ...
    @property
    def traceparent(self) -> str | None: ...


C = TypeVar("C", bound=Claim)


@dataclass(frozen=True, slots=True)
class Outcome(Generic[C]):
    """The result of sending. `pending` means: send again in `retry_in` seconds."""

    claim: C
    state: State
    cause: str | None = None
    retry_in: float = 0.0
    is_attempt: bool = True
    """False if it must not count towards the attempts after which the delivery fails."""
    is_receivers: bool = True
    """False if the receiver is not at fault: nothing was sent, or the failure is our own."""
    answer: Answer | None = None
    began_at: datetime | None = None
    duration: float = 0.0
    """Seconds."""


class Queue(ABC, Generic[C]):
    """The deliveries of one channel. Methods with a session never commit."""

    channel: ClassVar[str]
    notify_channel: ClassVar[str]
    """PostgreSQL channel that is notified when a delivery becomes due."""
    slots: int
    """Deliveries sent concurrently."""

    @abstractmethod
    async def claim(
        self, session: AsyncSession, *, limit: int, lease: timedelta, sending: Collection[C]
    ) -> Sequence[C]:
        """Claims due deliveries. `sending` are those that this process is sending already."""

    @abstractmethod
    async def renew(self, session: AsyncSession, held: Collection[C], *, lease: timedelta) -> None: ...

    @abstractmethod
    async def record(self, session: AsyncSession, outcomes: Collection[Outcome[C]]) -> None: ...

    @abstractmethod
    async def send(self, claim: C) -> Answer | None:
        """Returns once the receiver has accepted it. Raises `NothingToSend`, a `ChannelError`, or `Unavailable`."""

    @abstractmethod
    def delay(self, claim: C) -> float | None:
        """Seconds until the next attempt after this one; None gives up."""

    @abstractmethod
    async def backlog(self, session: AsyncSession) -> tuple[int, float]:
        """The number of pending deliveries, and the age of the oldest in seconds."""

    @abstractmethod
    def kind(self, claim: C) -> str:
        """An attribute of low cardinality, for spans."""

    @abstractmethod
    def ids(self, claim: C) -> dict[str, str | None]:
        """The fields that identify it in the log."""

    async def release_waiting(self, session: AsyncSession) -> bool:  # noqa: ARG002 - not every channel has such
        """Makes waiting deliveries due whose condition is met. Returns whether there were any. Called every second."""
        return False

    async def close_idle(self) -> None:
        """Closes connections that are not in use. Called every few seconds."""
