"""The model of an event's way: it finds planted faults, and its actions are functions of the code."""

import importlib
import re
from functools import reduce

import pytest

from waybill_dev.base.state import find_state
from waybill_dev.model import spin
from waybill_dev.model.pages import file_of, page
from waybill_dev.model.runs import ENDLESS, EXHAUSTIVE, LARGE, MUTANTS, NOT_PROMISED, Mutant, Run

FOLDER = find_state().checkout / "docs/model"
MODEL = FOLDER / "events.pml"
SPIN = spin.find_spin()
needs_spin = pytest.mark.skipif(SPIN is None, reason=spin.ADVICE)
PLANTED = (*MUTANTS, *NOT_PROMISED)


@needs_spin
@pytest.mark.parametrize("mutant", PLANTED, ids=lambda mutant: mutant.world)
def test_the_model_finds_a_planted_fault(mutant: Mutant) -> None:
    assert SPIN is not None
    result = SPIN.run(MODEL, {**mutant.settings, "WORLD": mutant.world}, spin.SHORTEST)
    assert mutant.breaks in (result.broken or "")
    assert page(mutant, result).count("\n| ") == len(result.steps) + 2


@needs_spin
@pytest.mark.slow
@pytest.mark.parametrize("run", EXHAUSTIVE, ids=lambda run: run.name)
def test_no_promise_is_broken_in_any_state(run: Run) -> None:
    assert SPIN is not None
    result = SPIN.run(MODEL, run.settings)
    assert (result.broken, result.steps) == (None, ())


@needs_spin
@pytest.mark.slow
def test_every_run_of_the_model_ends() -> None:
    assert SPIN is not None
    assert SPIN.run(MODEL, ENDLESS.settings, spin.CYCLES).broken is None


@needs_spin
@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_a_random_search_of_larger_bounds_finds_nothing(seed: int) -> None:
    assert SPIN is not None
    result = SPIN.run(MODEL, LARGE.settings, spin.AT_RANDOM, seed=seed, within=30)
    assert (result.broken, result.steps) == (None, ())
    assert result.states > 10_000


@pytest.mark.parametrize("mutant", PLANTED, ids=lambda mutant: mutant.world)
def test_every_planted_fault_has_a_page(mutant: Mutant) -> None:
    assert file_of(mutant, FOLDER / "counterexamples").read_text().startswith(f"# {mutant.title}\n")


def test_what_an_action_models_is_in_the_code() -> None:
    comments = " ".join(re.findall(r"/\*.*?\*/", MODEL.read_text(), re.DOTALL))
    modules = (
        "aggregate_versions|batch|consumer|deferred|deliveries|inbox|outbox_partitions|outbox|parked|publisher|receiver"
    )
    named = re.findall(rf"\b({modules})\.([A-Za-z_]+(?:\.[A-Za-z_]+)*)", comments)
    assert len(named) > 10
    for module, path in named:
        reduce(getattr, path.split("."), importlib.import_module(f"common.messaging.{module}"))
