"""Measurements fail alone."""

import asyncio

from bench.table import Goal, Missing, Rounds, Row, Table


async def three() -> float:
    return 3.0


async def fails() -> float:
    raise ConnectionError("no broker")


async def never_ends() -> float:
    await asyncio.Event().wait()
    return 0.0


async def test_a_failed_measurement_costs_only_the_rows_that_need_it() -> None:
    rounds, rows = Rounds(), list[Row]()
    await rounds.measure("good", three, within=10)
    await rounds.measure("bad", fails, within=10)
    table = Table(rows.append)
    table.add("good", rounds.median("good"), "/s")
    table.add("bad ÷ good", ratio=rounds.ratio("bad", "good"), goal=Goal(1))
    assert rows[0].as_json()["figure"] == 3.0
    assert rows[1].as_json()["missing"] == "failed: ConnectionError: no broker"
    assert rows[1].is_met is None


async def test_a_measurement_that_takes_too_long_says_so() -> None:
    rounds = Rounds()
    await rounds.measure("slow", never_ends, within=0.01)
    assert rounds.median("slow") == Missing("not done within 0.01 s")


async def test_a_figure_that_failed_once_has_no_median_of_the_other_rounds() -> None:
    rounds = Rounds()
    await rounds.measure("unsteady", three, within=10)
    await rounds.measure("unsteady", fails, within=10)
    assert isinstance(rounds.median("unsteady"), Missing)


async def test_a_ratio_is_the_median_of_the_ratios_within_rounds() -> None:
    rounds = Rounds()
    for ours, ceiling in ((1.0, 2.0), (8.0, 10.0), (90.0, 100.0)):
        rounds.add("ours", ours)
        rounds.add("ceiling", ceiling)
    assert rounds.ratio("ours", "ceiling") == 0.8
