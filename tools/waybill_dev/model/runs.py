"""Which bounds the model is checked with, which faults have to be found, and what is not promised."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Run:
    name: str
    settings: Mapping[str, int]
    is_fast: bool = False
    """Part of `./dev check`."""


def _run(name: str, *, fast: bool = False, **settings: int) -> Run:
    return Run(name, settings, fast)


EXHAUSTIVE: Final = (
    _run("an event, 2 faults", VERSIONS=1, FAULTS=2, REPLAYS=2, DISCARDS=1, fast=True),
    _run("two versions, 1 fault", VERSIONS=2, FAULTS=1, REPLAYS=0, fast=True),
    _run("two aggregates, 1 fault", AGGREGATES=2, VERSIONS=1, FAULTS=1, REPLAYS=0, fast=True),
    _run("three versions, no fault", VERSIONS=3, FAULTS=0, REPLAYS=0, fast=True),
    _run("a consumer that starts late", VERSIONS=2, FAULTS=0, REPLAYS=0, LATE=1, fast=True),
    _run("two versions, 1 fault, a replay", VERSIONS=2, FAULTS=1, REPLAYS=1),
    _run("two versions in batches, 1 fault", VERSIONS=2, FAULTS=1, PREFETCH=2, REPLAYS=0),
)
ENDLESS: Final = _run("every run ends", VERSIONS=1, FAULTS=2, REPLAYS=1)
"""That no run has a cycle is looked for in these bounds."""
LARGE: Final = _run("2 × 3 events", AGGREGATES=2, VERSIONS=3, FAULTS=4, TIERS=3, PREFETCH=3, REPLAYS=2, DISCARDS=1)


@dataclass(frozen=True)
class Mutant:
    """A fault that the model has to find, or a world in which it finds that a promise does not hold."""

    world: str
    title: str
    is_different: str
    """What is different from the code, or from what the promises assume."""
    answer: str
    """What the code does, or what an operator has to know."""
    settings: Mapping[str, int]
    breaks: str
    """A part of the promise that has to be found broken."""


MUTANTS: Final = (
    Mutant(
        "ACK_FIRST",
        "Acknowledged before the commit",
        "The consumer acknowledges a message when it receives it.",
        "`Consumer._settle` acknowledges after the commit. A message that is returned is recognised by the inbox.",
        {"VERSIONS": 1, "REPLAYS": 0},
        "neither done nor parked",
    ),
    Mutant(
        "CURSOR",
        "A cursor instead of presence",
        "The relay reads the rows behind the highest id that it published. Ids are given before the commit, so a"
        " transaction that takes longer commits behind the cursor.",
        "A row's presence in `outbox` means that it is not published yet (`_OLDEST` and `_MOVE` in `relay.py`).",
        {"AGGREGATES": 2, "VERSIONS": 1, "FAULTS": 0, "REPLAYS": 0},
        "neither done nor parked",
    ),
    Mutant(
        "NO_FENCE",
        "A lead without a fence",
        "A relay moves rows to the log although PostgreSQL has ended the transaction in which it got the lead.",
        "The advisory lock belongs to the transaction that moves the rows (`Relay._batch`): who loses one loses both.",
        {"VERSIONS": 2, "REPLAYS": 0},
        "the log grows behind its end",
    ),
    Mutant(
        "CLOSE_FIRST",
        "A replay that closes the row itself",
        "`parked replay` publishes and then closes the row. A message that fails again finds its row still open, and"
        " parks with `ON CONFLICT DO NOTHING`.",
        "The row stays open until the transaction that processes the message closes it (`parked.close_processed`).",
        {"VERSIONS": 1, "FAULTS": 0, "TIERS": 0},
        "neither done nor parked",
    ),
    Mutant(
        "ANY_VERSION",
        "An unknown aggregate at any version",
        "A consumer processes the first event that it sees of an aggregate, whatever its version.",
        "Versions begin at 1, so an unknown aggregate at version 2 is a gap (`aggregate_versions.seen_from_birth`).",
        {"FAULTS": 0, "REPLAYS": 0},
        "after a later one",
    ),
    Mutant(
        "CLOSE_SOME",
        "Only marked copies close a parked row",
        "A message closes the parked row of its event only if it is redelivered or replayed. This was our code: the"
        " model found it.",
        "Every message that is processed closes the open row of its event (`batch.process_batch`).",
        {"VERSIONS": 1, "REPLAYS": 0},
        "both parked and done",
    ),
    Mutant(
        "PARK_DONE",
        "Parked although a copy is done",
        "A message that failed is parked without a look at the inbox, and meanwhile another process has processed a"
        " copy of it. This was our code: the model found it.",
        "`parked.park` locks the event in the inbox first, and parks nothing that is there (`inbox.is_processed`).",
        {"VERSIONS": 1, "REPLAYS": 0, "TIERS": 0},
        "both parked and done",
    ),
)
NOT_PROMISED: Final = (
    Mutant(
        "LOSE_ORIGIN",
        "An asynchronous standby of the producer",
        "The producer's database fails over to a standby that has not got the last commits. Nobody can take back an"
        " event that was published or read already.",
        "Commits have to wait for the standby: `dataDurability: required` on Kubernetes.",
        {"VERSIONS": 1, "REPLAYS": 0},
        "no committed change",
    ),
    Mutant(
        "LOSE_TARGET",
        "An asynchronous standby of the consumer",
        "The consumer's database fails over to a standby that has not got the last commits, whose messages are"
        " acknowledged already.",
        "Commits have to wait for the standby. Where they did not, `events replay` from before the failover sends again"
        " what was lost; the inbox ignores the rest.",
        {"VERSIONS": 1, "REPLAYS": 0},
        "neither done nor parked",
    ),
    Mutant(
        "IMPATIENT",
        "A deferred event that waits too short",
        "An event is on its way for longer than all retry delays and ten seconds, for example in the batch of a frozen"
        " process.",
        "`waybill_consumer_gaps_total` counts events that are processed after that time. Handlers compare versions.",
        {"FAULTS": 0, "REPLAYS": 0},
        "after a later one",
    ),
)
