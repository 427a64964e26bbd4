"""The simulated queues behave as queueing theory says, where it has a formula."""

import math
import random

import pytest
from bench.queueing import SLICE, Clock, Node, Process, Step

SERVICE = SLICE / 4
"""Mean seconds, so that nearly all work is done in one slice."""


def mean_wait(cores: int, busy: float, *, varies: bool, customers: int = 200_000) -> float:
    """Seconds in the queue, of random arrivals that keep the cores that busy."""
    clock, chance, waits = Clock(), random.Random(7), list[float]()
    node = Node(clock, cores)

    def arrive(left: int) -> None:
        arrived, work = clock.now, chance.expovariate(1 / SERVICE) if varies else SERVICE
        node.work(work, lambda: waits.append(clock.now - arrived - work))
        if left > 1:
            clock.after(chance.expovariate(busy * cores / SERVICE), lambda: arrive(left - 1))

    arrive(customers)
    clock.run(math.inf)
    return sum(waits) / len(waits)


def erlang_c(cores: int, busy: float) -> float:
    """The probability to wait (Erlang, 1917)."""
    load = cores * busy
    full = load**cores / math.factorial(cores) / (1 - busy)
    return full / (sum(load**n / math.factorial(n) for n in range(cores)) + full)


@pytest.mark.parametrize("busy", [0.5, 0.8])
def test_one_core_with_equal_work_waits_as_pollaczek_and_khinchine_say(busy: float) -> None:
    assert mean_wait(1, busy, varies=False) == pytest.approx(SERVICE * busy / (2 * (1 - busy)), rel=0.05)


@pytest.mark.parametrize("cores", [2, 8])
def test_many_cores_with_random_work_wait_as_erlang_says(cores: int) -> None:
    busy = 0.8
    expected = erlang_c(cores, busy) * SERVICE / (cores * (1 - busy))
    assert mean_wait(cores, busy, varies=True) == pytest.approx(expected, rel=0.1)


def test_a_core_is_shared_in_slices() -> None:
    clock, ended = Clock(), list[str]()
    node = Node(clock, 1)
    node.work(10 * SLICE, lambda: ended.append("long"))
    node.work(SLICE, lambda: ended.append("short"))
    clock.run(math.inf)
    assert ended == ["short", "long"]
    assert clock.now == pytest.approx(11 * SLICE)
    assert node.busy == pytest.approx(11 * SLICE)


def test_a_process_takes_what_waits_in_batches_one_after_the_other() -> None:
    clock, batches = Clock(), list[list[int]]()
    node = Node(clock, 4)

    was_idle: list[bool] = []

    def steps(_: int, process_was_idle: bool) -> list[Step]:
        was_idle.append(process_was_idle)
        return [[(node, SLICE), (node, 3 * SLICE)]]  # at once, so a batch takes as long as the longer

    process = Process[int](3, steps, batches.append)
    for number in range(6):
        process.add(number)
    clock.run(math.inf)
    assert batches == [[0], [1, 2, 3], [4, 5]]
    assert was_idle == [True, False, False]
    assert clock.now == pytest.approx(9 * SLICE)
