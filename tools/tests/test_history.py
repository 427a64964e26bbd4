"""The rules by which a recorded history is checked: a sound one passes, and each fault is named."""

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from waybill_dev.history.reading import Step, read
from waybill_dev.history.rules import History

QUEUE = "shop.inbound"
SENT = ("recording", "publishing", "confirmed", "moved")
RECEIVED = ("delivered", "processing", "processed", "acknowledged")


def steps(version: int, names: Iterable[str]) -> str:
    return "; ".join(f"{version} {name}" for name in names)


SENT_1, SENT_2 = steps(1, SENT), steps(2, SENT)
SENT_3 = steps(3, SENT)
WHOLE_1, WHOLE_2 = f"{SENT_1}; {steps(1, RECEIVED)}", f"{SENT_2}; {steps(2, RECEIVED)}"


def history(text: str) -> History:
    """Each step names an event's version, what happened, and perhaps the process: `1 publishing; 2 delivered b`."""
    checked = History()
    for at, step in enumerate(text.split("; ")):
        version, name, *process = step.split()
        consumer = "" if name in SENT else QUEUE
        name = name.replace("ordered", "processing in order")
        checked.add(Step(at, "".join(process) or "a", name, f"event-{version}", "item", int(version), consumer))
    return checked


def faults(text: str) -> list[str]:
    return [violation.rule for violation in history(text).violations]


@pytest.mark.parametrize(
    "text",
    [
        f"{WHOLE_1}; {WHOLE_2}",
        # Unknown confirm: published again by another relay, and received twice.
        "1 recording; 1 publishing a; 1 publishing b; 1 confirmed b; 1 moved b; 1 delivered; 1 ordered; 1 processed",
        f"{WHOLE_1}; 1 delivered d; 1 duplicate d; 1 acknowledged d",
        # A consumer that died between its commit and the record of it.
        f"{SENT_1}; 1 delivered a; 1 processing a; 1 delivered b; 1 duplicate b; 1 acknowledged b; {WHOLE_2}",
        # Parked, replayed and processed.
        f"{SENT_1}; 1 delivered; 1 parked; 1 acknowledged; 1 replaying; {steps(1, RECEIVED)}",
        # The second waits for the first, which is received later.
        f"{SENT_1}; {SENT_2}; 2 delivered; 2 deferred; 2 acknowledged; {steps(1, RECEIVED)}; {steps(2, RECEIVED)}",
        # A duplicate is recorded before the process that committed records it.
        f"{SENT_1}; 1 delivered a; 1 processing a; 1 delivered b; 1 duplicate b; 1 acknowledged b; 1 processed a",
        # Parked, or of a type without a handler, in the transaction in which the second is processed.
        f"{SENT_1}; {SENT_2}; 1 delivered; 2 delivered; 1 parking; 2 ordered; 2 processed; 1 parked",
        f"{SENT_1}; {SENT_2}; 1 delivered; 2 delivered; 1 ignoring; 2 ordered; 2 processed; 1 ignored",
        # A consumer that died between its commit and the record that it has parked.
        f"{SENT_1}; 1 delivered a; 1 parking a; 1 replaying; 1 delivered b; 1 processing b; 1 processed b",
        # Earlier ones that come after one that has waited as long as it may.
        f"{SENT_1}; {SENT_2}; {SENT_3}; 3 delivered; 3 overdue; 3 ordered; 2 delivered; 2 ordered",
        # The second has waited as long as it may.
        f"{SENT_1}; {SENT_2}; 2 delivered; 2 overdue; 2 ordered",
    ],
)
def test_a_sound_history_breaks_no_rule(text: str) -> None:
    assert faults(text) == []


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("1 publishing", "published, but never recorded"),
        (f"{WHOLE_1}; 1 publishing b", "published again after it left the outbox"),
        ("1 recording; 2 recording; 1 publishing; 2 publishing", "published before its predecessor"),
        ("1 recording; 1 publishing; 1 moved", "left the outbox unconfirmed"),
        ("1 recording; 1 delivered", "delivered, but never published"),
        ("1 recording; 1 publishing; 1 delivered; 1 acknowledged", "acknowledged before its outcome"),
        (f"{WHOLE_1}; 1 delivered b; 1 processing b; 1 processed b", "processed twice"),
        (f"{WHOLE_1}; 1 delivered b; 1 parked b", "parked after it was processed"),
        (f"{SENT_1}; {SENT_2}; 2 delivered; 2 ordered", "processed before its predecessor"),
        (f"{SENT_1}; 1 delivered; 1 duplicate", "taken for a duplicate"),
        ("1 recording; 1 publishing; 1 delivered; 1 replaying", "replayed, but not parked"),
    ],
)
def test_a_fault_is_named(text: str, rule: str) -> None:
    found = faults(text)
    assert len(found) == 1
    assert rule in found[0]


@pytest.mark.parametrize(
    ("logged", "processed", "parked", "rule"),
    [
        (["event-1"], {"event-1"}, set(), None),
        (["event-1"], set(), {"event-1"}, None),
        (["event-1"], set(), set(), "lost by"),
        (["event-1"], {"event-1"}, {"event-1"}, "both processed and parked"),
        (["event-1", "before-the-history"], {"event-1"}, set(), None),
    ],
)
def test_the_end_is_compared_with_the_databases(
    logged: list[str], processed: set[str], parked: set[str], rule: str | None
) -> None:
    checked = history(WHOLE_1)
    checked.end(logged, [], {QUEUE: processed}, {QUEUE: parked})
    found = [violation.rule for violation in checked.violations]
    assert len(found) == (rule is not None)
    assert rule is None or rule in found[0]


def test_files_are_read_as_one_history_without_an_incomplete_line(tmp_path: Path) -> None:
    def line(at: int, name: str) -> str:
        return json.dumps({"at": at, "step": name, "event": "e", "subject": "s", "version": 1})

    (tmp_path / "relay-1.jsonl").write_text(f"{line(2, 'publishing')}\n{line(5, 'moved')}\n")
    (tmp_path / "api-2.jsonl").write_text(f"{line(1, 'recording')}\n{line(9, 'recording')[:20]}")
    assert [step.name for step in read(tmp_path)] == ["recording", "publishing", "moved"]
