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


async def test_early_checks_alone_do_not_make_a_process_ready() -> None:
    async def fine() -> None: ...

    health = Health(schema=fine)
    assert await health.ready() == (False, {"schema": "ok"})
    health.add("postgres", fine)
    assert await health.ready() == (True, {"schema": "ok", "postgres": "ok"})
