"""What came of an attempt to deliver, and when the next one is due."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from operator import attrgetter
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from notifier import queries
from notifier.models import State
from notifier.queries import ClaimedDelivery

FIRST_DELAY: Final = 2.0
LONGEST_DELAY: Final = 3600.0
MOST_ATTEMPTS: Final = 100
"""With these delays about four days, as RFC 5321 §4.5.4.1 has it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """`pending` is to be tried again in `retry_in` seconds; `counts` is whether this one was an attempt."""

    delivery: ClaimedDelivery
    state: State
    cause: str | None = None
    retry_in: float = 0.0
    counts: bool = True


def deferred(delivery: ClaimedDelivery, cause: str) -> Outcome:
    """Later, and later each time; after some days never."""
    if delivery.attempts >= MOST_ATTEMPTS:
        return Outcome(delivery, "failed", f"given up after {delivery.attempts} attempts: {cause}")
    delay = min(FIRST_DELAY * 2.0 ** (delivery.attempts - 1), LONGEST_DELAY)
    return Outcome(delivery, "pending", cause, jittered(delay))


def jittered(seconds: float) -> float:
    """So that what failed together does not come back together."""
    return seconds * random.uniform(0.75, 1.25)  # noqa: S311 - spreads load, guards no secret


async def record(session: AsyncSession, outcomes: Sequence[Outcome]) -> None:
    """Records what came of deliveries in the caller's transaction."""
    for outcome in outcomes:
        if outcome.state == "pending":
            await queries.postpone_delivery(
                session,
                outcome.delivery,
                by=timedelta(seconds=outcome.retry_in),
                cause=outcome.cause,
                counts=outcome.counts,
            )
    settled = sorted((o for o in outcomes if o.state != "pending"), key=lambda o: (o.state, o.cause or ""))
    for (state, cause), group in groupby(settled, key=attrgetter("state", "cause")):
        await queries.settle_deliveries(session, [outcome.delivery.id for outcome in group], state, cause=cause)
