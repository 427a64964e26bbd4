"""Faults planted into the code or its statements. Each must be found, or the simulation proves nothing."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import pytest

from common.messaging import aggregate_versions, lower_bound, outbox_partitions, parked
from common.messaging.batch import DecodedDelivery
from common.messaging.consumer import Consumer
from common.messaging.deliveries import Deliveries

from . import statements
from .store import Session


def acknowledge_before_commit(patch: pytest.MonkeyPatch) -> None:
    process = Consumer._process

    async def early(
        self: Consumer, deliveries: Sequence[DecodedDelivery], received: Deliveries, publisher: Any, *, suspect: bool
    ) -> None:
        await received.acknowledge([delivery.message for delivery in deliveries])
        await process(self, deliveries, received, publisher, suspect=suspect)

    patch.setattr(Consumer, "_process", early)


def cursor_instead_of_presence(patch: pytest.MonkeyPatch) -> None:
    async def moved(self: lower_bound.LowerBound, connection: Any, last: int | None) -> None:
        self._bound = last or self._bound

    patch.setattr(lower_bound.LowerBound, "moved", moved)
    patch.setattr(lower_bound.LowerBound, "after", lambda self, **_: self._bound)


def no_fence(patch: pytest.MonkeyPatch) -> None:
    """The lock is held when the batch begins, and not by the transaction that moves its rows."""

    async def lock(session: Session, partitions: Sequence[int]) -> tuple[int, ...]:
        locked = await statements.lock(session, partitions)
        session.unlock("partition")
        return locked

    patch.setattr(outbox_partitions, "lock", lock)


def park_without_waiting(patch: pytest.MonkeyPatch) -> None:
    """ON CONFLICT DO NOTHING, and a replay that closes the row."""
    replay = parked.replay

    async def park(session: Session, consumer: str, message: Any, cause: str, **options: Any) -> bool:
        async def is_parked() -> bool:
            key = statements.parked_key(message, options["event_id"])
            return any(statements.is_open(row, key) for row in session.rows("parked").values())

        if not await session.run(is_parked):
            return await statements.park(session, consumer, message, cause, **options)
        return True

    async def closing(session: Any, consumer: str, message_id: Any, channel: Any) -> bool:
        async def close() -> None:
            row = session.row("parked", message_id)
            await session.lock("parked", row["key"])
            session.write("parked", message_id, row | {"resolved_at": statements.now()})

        was_open = await replay(session, consumer, message_id, channel)
        if was_open:
            await session.run(close)
        return was_open

    patch.setattr(parked, "park", park)
    patch.setattr(parked, "replay", closing)


def unknown_aggregate_at_any_version(patch: pytest.MonkeyPatch) -> None:
    async def none(*_: object) -> list[object]:
        return []

    patch.setattr(aggregate_versions, "seen_from_birth", none)


MUTANTS: Final[Mapping[str, Callable[[pytest.MonkeyPatch], None]]] = {
    mutant.__name__: mutant
    for mutant in (
        acknowledge_before_commit,
        cursor_instead_of_presence,
        no_fence,
        park_without_waiting,
        unknown_aggregate_at_any_version,
    )
}
