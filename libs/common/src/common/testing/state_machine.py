"""State machines of hypothesis whose steps are coroutines, so that they call an API in the event loop that it runs in.

`hypothesis` prints the steps of a failure, shrunk, and a blob: with `@reproduce_failure(…)` on the machine's class it
runs again, with `--hypothesis-seed=N` the whole test.
"""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

T = TypeVar("T")


class AsyncStateMachine(RuleBasedStateMachine):
    """`loop` is that of the test's fixtures. It runs only while a step does."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop

    def wait(self, step: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(step)


def in_loop(step: Callable[..., Coroutine[Any, Any, T]]) -> Callable[..., T]:
    """Makes a rule or an invariant out of a coroutine function. It is the decorator next to the function."""

    @functools.wraps(step)
    def run(machine: AsyncStateMachine, **values: Any) -> T:
        return machine.wait(step(machine, **values))

    return run


def explore(machine: Callable[[], AsyncStateMachine], *, examples: int, steps: int = 30) -> None:
    """Runs `examples` histories of at most `steps` steps. Raises the failure of the shortest one that fails."""
    settings = hypothesis_settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )
    run_state_machine_as_test(machine, settings=settings)  # type: ignore[arg-type]  # a factory is taken as well


def examples(few: int, many: int) -> pytest.MarkDecorator:
    """Parametrizes a test: `few` examples in every run, `many` with `--slow`."""
    return pytest.mark.parametrize("examples", [few, pytest.param(many, marks=pytest.mark.slow)])
