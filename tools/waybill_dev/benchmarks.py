"""The list of benchmarks. Each is the module of its name in `bench/` and runs in a process of its own."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Benchmark:
    sentence: str
    seconds: int
    """Approximate duration on two cores, without the boot of the servers."""

    @property
    def limit(self) -> int:
        """Seconds after which it is stopped. The rows that it has by then are kept."""
        return 3 * self.seconds + 60


BENCHMARKS: Mapping[str, Benchmark] = {
    "orders": Benchmark("POST /orders and a change of state ÷ FastAPI with one INSERT, ÷ the usual tutorial.", 70),
    "reads": Benchmark("GET /orders/{id} ÷ FastAPI with one SELECT.", 25),
    "relay": Benchmark("The relay emptying an outbox ÷ confirmed publishing by the same driver; partitions.", 40),
    "snapshot": Benchmark("The relay while a backup holds a snapshot of many deleted rows ÷ without.", 40),
    "fanout": Benchmark("Confirmed publishing with 5, 20 and 50 bound queues ÷ with one.", 25),
    "consumer": Benchmark("The consumer with its inbox ÷ aio-pika acknowledging each message; queues.", 40),
    "latency": Benchmark("Order committed → notification committed ÷ raw publish → receipt, p99.", 60),
    "feed": Benchmark("Order committed → its event received over HTTP; memory of idle streams.", 60),
    "revocation": Benchmark("Sign-out at auth → 401 at orders.", 20),
    "logins": Benchmark("Password logins ÷ argon2 alone on all cores; indistinguishable refusals.", 45),
    "grants": Benchmark("Refresh and client-credentials grants, per second and core.", 20),
    "capacity": Benchmark("Processor time of each process an order; the simulation ÷ a measured run.", 100),
    "size": Benchmark("Placing, reading and relaying with many orders and waiting rows ÷ with few.", 120),
    "footprint": Benchmark("Memory of each API process, and a warm ./dev up.", 30),
}
