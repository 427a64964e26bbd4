"""The queue of mails."""

from collections.abc import Collection, Sequence
from datetime import timedelta
from itertools import groupby
from operator import attrgetter
from typing import ClassVar, Final, Protocol

from sqlalchemy.ext.asyncio import AsyncSession

from notifier import queries
from notifier.delivery.queue import Outcome, Queue
from notifier.handlers import DELIVERIES_CHANNEL
from notifier.mail.composer import Composer
from notifier.mail.limits import UnverifiedLimit
from notifier.mail.message import Mail
from notifier.queries import ClaimedDelivery

_FIRST_DELAY: Final = 2.0
_MAX_DELAY: Final = 3600.0
_MAX_ATTEMPTS: Final = 100
"""With these delays a mail is tried for about four days; RFC 5321 §4.5.4.1 asks for four to five."""
_RELEASE_LIMIT: Final = 1000
"""Deliveries without a contact that are checked per poll, at most."""

_ROUNDS: Final = 100
"""Claims in one transaction, at most, while none of the claimed mails may be sent. Others wait behind those."""


class Channel(Protocol):
    async def send(self, mail: Mail) -> None: ...
    async def close_idle(self) -> None: ...


class MailQueue(Queue[ClaimedDelivery]):
    channel: ClassVar = "mail"
    notify_channel: ClassVar = DELIVERIES_CHANNEL

    def __init__(self, composer: Composer, channel: Channel, limit: UnverifiedLimit, *, slots: int) -> None:
        self.slots = slots
        self._limit = limit
        self._composer = composer
        self._channel = channel

    async def claim(
        self,
        session: AsyncSession,
        *,
        limit: int,
        lease: timedelta,
        sending: Collection[ClaimedDelivery],  # noqa: ARG002 - one server receives all mails: no need to share slots
    ) -> Sequence[ClaimedDelivery]:
        for _ in range(_ROUNDS):
            claimed = await queries.claim_deliveries(session, limit=limit, lease=lease)
            admitted = await self._limit.admit(session, claimed)
            if admitted or not claimed:
                break
        return admitted

    async def renew(self, session: AsyncSession, held: Collection[ClaimedDelivery], *, lease: timedelta) -> None:
        await queries.renew_claims(session, [claim.id for claim in held], lease=lease)

    async def record(self, session: AsyncSession, outcomes: Collection[Outcome[ClaimedDelivery]]) -> None:
        for outcome in outcomes:
            if outcome.state == "pending":
                await queries.postpone_delivery(
                    session, outcome.claim, outcome.retry_in, cause=outcome.cause, is_attempt=outcome.is_attempt
                )
        settled = sorted((o for o in outcomes if o.state != "pending"), key=lambda o: (o.state, o.cause or ""))
        for (state, cause), group in groupby(settled, key=attrgetter("state", "cause")):
            await queries.settle_deliveries(session, [outcome.claim.id for outcome in group], state, cause=cause)

    async def send(self, claim: ClaimedDelivery) -> None:
        await self._channel.send(await self._composer.compose(claim))

    def delay(self, claim: ClaimedDelivery) -> float | None:
        attempts = claim.attempts
        return min(_FIRST_DELAY * 2.0 ** (attempts - 1), _MAX_DELAY) if attempts < _MAX_ATTEMPTS else None

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

    async def release_waiting(self, session: AsyncSession) -> bool:
        return await queries.release_overlooked(session, limit=_RELEASE_LIMIT) > 0

    async def close_idle(self) -> None:
        await self._channel.close_idle()
