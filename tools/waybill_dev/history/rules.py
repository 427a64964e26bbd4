"""The rules of a history: which step may follow which, for an event, an aggregate and a consumer.

They are the transitions of the model (docs/model), written a second time and without looking at the code that is
checked. A step that was not recorded, because its process died before it could, is inferred from the ones after it.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from waybill_dev.history.reading import Step

OUTCOMES = {"processed", "duplicate", "deferred", "retried", "parked", "ignored"}
"""What may become of a delivery before it is acknowledged."""


@dataclass(frozen=True)
class Violation:
    rule: str
    event: str
    step: Step | None


@dataclass
class _Event:
    recorded: bool = False
    published: bool = False
    confirmed: bool = False
    moved: bool = False


@dataclass
class _Reception:
    """An event at one consumer."""

    begun: bool = False
    """Its transaction may have been committed."""
    processed: bool = False
    done: bool = False
    """Processed, by its own record or by that of a duplicate, which may come first."""
    parking: bool = False
    """The transaction that parks it may have been committed."""
    parked: bool = False
    held: dict[str, str] = field(default_factory=dict)
    """What became of its last delivery to each process, '' for nothing yet."""


class History:
    """`add` the steps in the order of time, then `end`. `violations` has what broke a rule."""

    def __init__(self) -> None:
        self.violations: list[Violation] = []
        self.steps = 0
        self._events: defaultdict[str, _Event] = defaultdict(_Event)
        self._versions: dict[tuple[str, int], str] = {}
        self._given_up: defaultdict[tuple[str, str], int] = defaultdict(int)
        """Up to which version a consumer's patience for missing ones has ended."""
        self._receptions: defaultdict[tuple[str, str], _Reception] = defaultdict(_Reception)

    @property
    def events(self) -> int:
        return len(self._events)

    def add(self, step: Step) -> None:
        self.steps += 1
        if step.consumer:
            self._receive(step, self._receptions[step.consumer, step.event])
        else:
            self._send(step, self._events[step.event])

    def _send(self, step: Step, event: _Event) -> None:
        match step.name:
            case "recording":
                event.recorded = True
                self._versions[step.subject, step.version] = step.event
            case "publishing":
                self._versions[step.subject, step.version] = step.event
                self._check(event.recorded, "published, but never recorded", step)
                self._check(not event.moved, "published again after it left the outbox", step)
                self._check(self._predecessor_confirmed(step), "published before its predecessor was confirmed", step)
                event.published = True
            case "confirmed":
                self._check(event.published, "confirmed, but never published", step)
                event.confirmed = True
            case "moved":
                self._check(event.confirmed, "left the outbox unconfirmed", step)
                event.moved = True

    def _receive(self, step: Step, at: _Reception) -> None:
        match step.name:
            case "delivered":
                self._check(self._events[step.event].published, "delivered, but never published", step)
                at.held[step.process] = ""
            case "replaying":
                self._check(at.parked or at.parking, "replayed, but not parked", step)
            case "overdue":
                key = step.consumer, step.subject
                self._given_up[key] = max(step.version, self._given_up[key])
            case "acknowledged":
                self._check(at.held.get(step.process) in OUTCOMES, "acknowledged before its outcome was stored", step)
            case "processing" | "processing in order" as begun:
                in_order = begun == "processing" or self._predecessor_processed(step)
                self._check(in_order, "processed before its predecessor", step)
                at.begun = True
            case "parking":
                at.parking = True
            case "ignoring":
                at.begun = True
            case _:
                self._settle(step, at)
                at.held[step.process] = step.name

    def _settle(self, step: Step, at: _Reception) -> None:
        match step.name:
            case "ignored":
                at.begun = True
            case "processed":
                self._check(step.process in at.held, "processed, but not delivered", step)
                self._check(not at.processed, "processed twice", step)
                at.processed, at.done, at.parked = True, True, False
            case "duplicate":
                self._check(at.begun, "taken for a duplicate, but never processed", step)
                at.done, at.parked = True, False
            case "parked":
                self._check(not at.done, "parked after it was processed", step)
                at.parked = True

    def _predecessor_confirmed(self, step: Step) -> bool:
        before = self._versions.get((step.subject, step.version - 1))
        return before is None or self._events[before].confirmed

    def _predecessor_processed(self, step: Step) -> bool:
        before = self._versions.get((step.subject, step.version - 1))
        if before is None or step.version <= self._given_up[step.consumer, step.subject]:
            return True
        predecessor = self._receptions[step.consumer, before]
        return predecessor.begun or predecessor.parking or predecessor.parked

    def end(
        self,
        logged: Iterable[str],
        unpublished: Iterable[str],
        processed: Mapping[str, set[str]],
        parked: Mapping[str, set[str]],
    ) -> None:
        """Compares with the databases at rest: ids in a producer's log and in its outbox, and for each consumer that
        receives all its events, the ids in its inbox and those of its open parked messages.
        """
        for event in self._events.keys() & set(unpublished):
            self._violated("never left the outbox", event)
        published = self._events.keys() & set(logged)
        for consumer, done in processed.items():
            waiting = parked.get(consumer, set())
            for event in published & done & waiting:
                self._violated(f"both processed and parked by {consumer}", event)
            for event in published - done - waiting:
                self._violated(f"lost by {consumer}", event)

    def _check(self, holds: bool, rule: str, step: Step) -> None:
        if not holds:
            self._violated(rule, step.event, step)

    def _violated(self, rule: str, event: str, step: Step | None = None) -> None:
        self.violations.append(Violation(rule, event, step))
