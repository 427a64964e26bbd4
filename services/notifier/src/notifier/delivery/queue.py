"""What a deliverer needs of a channel: the queue of what is due on it, and the way there."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Hashable, Sequence
from datetime import datetime, timedelta
from typing import ClassVar, Generic, Protocol, TypeVar
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from notifier.delivery.outcomes import Outcome


class Claim(Protocol):
    """A delivery that is ours until its lease ends."""

    @property
    def key(self) -> Hashable: ...
    @property
    def attempts(self) -> int:
        """With this one."""
        ...

    @property
    def event_id(self) -> UUID: ...
    @property
    def created_at(self) -> datetime: ...
    @property
    def traceparent(self) -> str | None: ...


C = TypeVar("C", bound=Claim)


class Queue(ABC, Generic[C]):
    """What is to be delivered over one channel, and how."""

    channel: ClassVar[str]
    notify_channel: ClassVar[str]
    """Rung when a delivery falls due."""
    slots: int
    """How many are sent side by side."""

    @abstractmethod
    async def claim(
        self, session: AsyncSession, *, limit: int, lease: timedelta, sending: Collection[C]
    ) -> Sequence[C]: ...

    @abstractmethod
    async def renew(self, session: AsyncSession, held: Collection[C], *, lease: timedelta) -> None: ...

    @abstractmethod
    async def record(self, session: AsyncSession, outcomes: Collection[Outcome[C]]) -> None: ...

    @abstractmethod
    async def send(self, claim: C) -> None:
        """Returns once the other side has taken it. Raises `NothingToSend`, a `ChannelError`, or `Unavailable`."""

    @abstractmethod
    def delay(self, attempts: int) -> float | None:
        """Seconds until the next try after so many; none when it is given up."""

    @abstractmethod
    async def backlog(self, session: AsyncSession) -> tuple[int, float]:
        """How many are pending, and the age of the oldest in seconds."""

    @abstractmethod
    def kind(self, claim: C) -> str:
        """Of which there are few."""

    @abstractmethod
    def ids(self, claim: C) -> dict[str, str | None]:
        """What the log names it by."""

    async def tend(self, session: AsyncSession) -> bool:  # noqa: ARG002 - nothing, where a channel has no need of it
        """Every second; whether something fell due."""
        return False

    async def rest(self) -> None:
        """Every few seconds: lets go of what nobody needs."""
