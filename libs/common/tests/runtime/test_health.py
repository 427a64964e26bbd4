"""Readiness is the result of all checks."""

from common.runtime.health import Health


async def test_a_check_added_while_others_run_counts_from_the_next_time_on() -> None:
    health = Health()

    async def fine() -> None: ...

    async def adds_another() -> None:
        health.add("late", fine)

    health.add("early", adds_another)
    assert await health.ready() == (True, {"early": "ok"})
    assert await health.ready() == (True, {"early": "ok", "late": "ok"})
