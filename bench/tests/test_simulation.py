"""The simulation loses nothing, repeats itself, and agrees with what was measured."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from bench import simulation
from bench.capacity import COMPARED, agreement_of, measured_figures, simulate_measured
from bench.simulation import Deployment
from bench.times import Part, Times

MEASURED = Path(__file__).parents[1] / "measured.json"
TIMES = Times(
    client=1e-4,
    api=Part(1e-4, 5e-4),
    write=Part(4e-4, 2.5e-4),
    relay=Part(1e-3, 1.5e-4),
    move=Part(4e-4, 2e-5),
    publish=Part(2e-4, 4e-5),
    consumer=Part(2e-3, 1.2e-4),
    effect=Part(4e-4, 6e-5),
    deliver=Part(2e-4, 3e-5),
    api_change=2.8e-3,
    write_change=1.1e-3,
    lag=8e-3,
)


def test_an_order_that_is_alone_takes_the_sum_of_its_steps() -> None:
    outcome = simulation.at_rate(TIMES, Deployment(1, 1, 1), 1, seconds=200)
    publish = max(TIMES.relay.of(1), TIMES.publish.of(1))
    steps = (TIMES.move.of(1), publish, TIMES.deliver.of(1), TIMES.consumer.of(1), TIMES.effect.of(1))
    assert outcome.p50 == pytest.approx(sum(steps), rel=0.1)


def test_each_order_of_a_saturated_machine_is_notified_and_its_processors_are_busy() -> None:
    machine = simulation.on_this_machine(2)
    outcome = simulation.saturated(TIMES, machine, connections=16, orders=2000)
    assert outcome.busy["api"] == pytest.approx(1, abs=0.05)
    assert outcome == simulation.saturated(TIMES, machine, connections=16, orders=2000)
    assert outcome != simulation.saturated(TIMES, machine, connections=16, orders=2000, seed=2)


def test_what_is_planned_for_a_rate_reaches_it_with_nothing_too_busy() -> None:
    deployment, outcome = simulation.plan(TIMES, 200, seconds=5, floor=0.0)
    assert outcome.rate == pytest.approx(200 * (1 + simulation.CHANGES), rel=0.05)
    assert max(outcome.busy.values()) <= simulation.FULL + 0.01
    assert outcome.request_p99 < 0.2
    smaller = simulation.loaded(TIMES, replace(deployment, api=1), 200, seconds=5, floor=0.0)
    assert smaller.request_p99 > 1


def test_the_simulation_agrees_with_the_last_measured_run() -> None:
    run = json.loads(MEASURED.read_text())
    (_, simulated), measured = simulate_measured(run, 2000), measured_figures(run)
    for key, _, _, goal in COMPARED:
        if goal is not None:
            assert goal.is_met(agreement_of(simulated[key], measured[key])), key
