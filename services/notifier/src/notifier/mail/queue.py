"""Mails that are due, on their way over SMTP."""

from collections.abc import Collection, Sequence
from datetime import timedelta
from itertools import groupby
from operator import attrgetter
from typing import ClassVar, Final, Protocol

from sqlalchemy.ext.asyncio import AsyncSession

from notifier import queries
from notifier.delivery.outcomes import Outcome
from notifier.delivery.queue import Queue
from notifier.handlers import DELIVERIES_CHANNEL
from notifier.mail.composer import Composer
from notifier.mail.message import Mail
from notifier.queries import ClaimedDelivery

_FIRST_DELAY: Final = 2.0
_LONGEST_DELAY: Final = 3600.0
_MOST_ATTEMPTS: Final = 100
"""With these delays about four days, as RFC 5321 §4.5.4.1 has it."""
_LOOK_AGAIN: Final = 1000
"""Most deliveries without a contact that are looked at in one poll."""


class Channel(Protocol):
    async def send(self, mail: Mail) -> None: ...
    async def rest(self) -> None: ...


class MailQueue(Queue[ClaimedDelivery]):
    channel: ClassVar = "mail"
    notify_channel: ClassVar = DELIVERIES_CHANNEL

    def __init__(self, composer: Composer, channel: Channel, *, slots: int) -> None:
        self.slots = slots
        self._composer = composer
        self._channel = channel

    async def claim(
        self,
        session: AsyncSession,
        *,
        limit: int,
        lease: timedelta,
        sending: Collection[ClaimedDelivery],  # noqa: ARG002 - there is one server: no share to keep
    ) -> Sequence[ClaimedDelivery]:
        return await queries.claim_deliveries(session, limit=limit, lease=lease)

    async def renew(self, session: AsyncSession, held: Collection[ClaimedDelivery], *, lease: timedelta) -> None:
        await queries.renew_claims(session, [claim.id for claim in held], lease=lease)

    async def record(self, session: AsyncSession, outcomes: Collection[Outcome[ClaimedDelivery]]) -> None:
        for outcome in outcomes:
            if outcome.state == "pending":
                by = timedelta(seconds=outcome.retry_in)
                await queries.postpone_delivery(
                    session, outcome.claim, by=by, cause=outcome.cause, counts=outcome.counts
                )
        settled = sorted((o for o in outcomes if o.state != "pending"), key=lambda o: (o.state, o.cause or ""))
        for (state, cause), group in groupby(settled, key=attrgetter("state", "cause")):
            await queries.settle_deliveries(session, [outcome.claim.id for outcome in group], state, cause=cause)

    async def send(self, claim: ClaimedDelivery) -> None:
        await self._channel.send(await self._composer.compose(claim))

    def delay(self, attempts: int) -> float | None:
        return min(_FIRST_DELAY * 2.0 ** (attempts - 1), _LONGEST_DELAY) if attempts < _MOST_ATTEMPTS else None

    async def backlog(self, session: AsyncSession) -> tuple[int, float]:
        return await queries.backlog(session)

    def kind(self, claim: ClaimedDelivery) -> str:
        return claim.kind

    def ids(self, claim: ClaimedDelivery) -> dict[str, str | None]:
        return {
            "delivery_id": str(claim.id),
            "event_id": str(claim.notification_id),
            "user_id": str(claim.user_id),
            "order_id": str(claim.order_id) if claim.order_id else None,
            "kind": claim.kind,
        }

    async def tend(self, session: AsyncSession) -> bool:
        return await queries.release_overlooked(session, limit=_LOOK_AGAIN) > 0

    async def rest(self) -> None:
        await self._channel.rest()
