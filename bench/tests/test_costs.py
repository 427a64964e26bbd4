"""A cost that differs from the baseline is named, in both directions."""

from dataclasses import asdict, replace

from bench.costs import differences, missed_goals
from bench.meter import Cost

ORDER = Cost(statements=1, control=0, round_trips=1, notify=1, wal_bytes=3000)
BASELINE = {"an order": asdict(ORDER)}


def test_the_same_costs_do_not_differ() -> None:
    assert differences({"an order": ORDER}, BASELINE) == []


def test_one_statement_more_or_less_differs() -> None:
    assert differences({"an order": replace(ORDER, statements=2)}, BASELINE) == ["an order: statements 1 → 2"]
    assert differences({"an order": replace(ORDER, round_trips=0)}, BASELINE) == ["an order: round trips 1 → 0"]


def test_bytes_of_log_differ_above_the_tolerance() -> None:
    assert differences({"an order": replace(ORDER, wal_bytes=3100)}, BASELINE) == []
    assert differences({"an order": replace(ORDER, wal_bytes=3200)}, BASELINE) == ["an order: wal bytes 3000 → 3200"]


def test_a_cost_without_a_baseline_and_a_baseline_without_a_cost_differ() -> None:
    assert differences({"a refund": ORDER}, BASELINE) == [
        "a refund: not in the baseline",
        "an order: in the baseline, and not counted",
    ]


def test_a_missed_goal_is_named() -> None:
    costs = dict.fromkeys(("an order", "an event relayed", "an event consumed in order"), ORDER)
    assert missed_goals(costs) == [
        "an event relayed: 1 statements, and the goal is 0.01",
        "an event consumed in order: 1 statements, and the goal is 0.05",
    ]
