"""Which benchmarks there are. Each is the module of its name in `bench/`, which runs in a process of its own."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Benchmark:
    sentence: str
    seconds: int
    """About how long it takes on two cores, the boot of the servers aside."""


BENCHMARKS: Mapping[str, Benchmark] = {
    "orders": Benchmark("POST /orders ÷ FastAPI with one INSERT, ÷ the usual tutorial; p99 ÷ p50.", 60),
    "reads": Benchmark("GET /orders/{id} ÷ FastAPI with one SELECT.", 40),
}
