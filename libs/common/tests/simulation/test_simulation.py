"""The relay and the consumer, as they are, in simulated worlds: each seed is another order of steps and faults.

`WAYBILL_SEED=N` repeats the world of one seed.
"""

import asyncio
import os
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest

from common.messaging import deferred

from .loop import OUTSIDE
from .mutants import MUTANTS
from .seams import simulated
from .world import World

ONE_SEED = os.environ.get("WAYBILL_SEED")


def first_fault(seeds: Iterable[int]) -> str | None:
    """The first seed whose world has a fault, with all that is wrong in it."""
    for seed in [int(ONE_SEED)] if ONE_SEED else seeds:
        if faults := World(seed).run():
            return "\n".join((f"WAYBILL_SEED={seed}", *faults))
    return None


def test_under_faults_nothing_is_lost_or_doubled_or_out_of_order() -> None:
    with simulated():
        assert first_fault(range(150)) is None


@pytest.mark.slow
@pytest.mark.parametrize("thousand", [1, 2])
def test_under_thousands_of_faults_nothing_is_lost_or_doubled_or_out_of_order(thousand: int) -> None:
    with simulated():
        assert first_fault(range(thousand * 1000, thousand * 1000 + 500)) is None


@pytest.mark.parametrize("seed", [7956])
def test_a_message_sent_twice_to_its_retry_queue_is_not_both_processed_and_parked(seed: int) -> None:
    with simulated():
        assert first_fault([seed]) is None


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_fault_is_found(name: str) -> None:
    with simulated() as patch:
        MUTANTS[name](patch)
        assert first_fault(range(300)) is not None


def test_a_seed_repeats_its_world() -> None:
    def steps() -> list[Any]:
        world = World(7)
        world.run()
        return [(step.process, step.name, step.event, step.version) for step in world.steps]

    with simulated():
        assert steps() == steps()


def test_a_slow_broker_holds_up_the_next_release_of_deferred_messages_for_half_a_minute_at_most() -> None:
    with simulated() as patch:
        world, begun = World(0), []

        async def slow(*_: object) -> None:
            begun.append(world.loop.time())
            await asyncio.sleep(12)

        patch.setattr(deferred, "release", slow)
        releasing: Any = deferred.keep_releasing(None, "", None, (), lambda: True)  # type: ignore[arg-type]
        world.loop.create_task(releasing, context=OUTSIDE.context)
        world.loop.call_at(200, world.loop.stop, context=OUTSIDE.context)
        world.loop.run_forever()
        world.loop.dispose()
    assert len(begun) > 1
    assert max(after - before for before, after in pairwise(begun)) < 12 + 31
