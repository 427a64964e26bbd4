"""The list of benchmarks. Each is the module of its name in `bench/` and runs in a process of its own."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Benchmark:
    sentence: str
    seconds: int
    """Approximate duration on two cores, without the boot of the servers."""


BENCHMARKS: Mapping[str, Benchmark] = {
    "orders": Benchmark("POST /orders ÷ FastAPI with one INSERT, ÷ the usual tutorial; p99 ÷ p50.", 60),
    "reads": Benchmark("GET /orders/{id} ÷ FastAPI with one SELECT.", 40),
    "relay": Benchmark("The relay emptying an outbox ÷ confirmed publishing by the same driver.", 30),
    "consumer": Benchmark("The consumer with its inbox ÷ aio-pika acknowledging each message.", 40),
    "latency": Benchmark("Order committed → notification committed ÷ raw publish → receipt, p99.", 60),
    "revocation": Benchmark("Sign-out at auth → 401 at orders.", 20),
    "logins": Benchmark("Password logins ÷ argon2 alone on all cores; indistinguishable refusals.", 50),
    "size": Benchmark("Placing, reading and relaying with many orders and waiting rows ÷ with few.", 150),
    "footprint": Benchmark("Memory of each API process, and a warm ./dev up.", 30),
}
