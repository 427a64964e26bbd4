"""The strikes of `./dev chaos`, which a seed repeats."""

from itertools import islice

from waybill_dev.chaos.plan import Strike, plan

NAMES = ["rabbitmq", "postgres", "orders-api", "orders-relay"]


def strikes(seed: int, names: list[str] = NAMES, count: int = 40) -> list[Strike]:
    return list(islice(plan(seed, names, every=10), count))


def test_a_seed_repeats_its_strikes_whatever_the_order_of_the_processes() -> None:
    assert strikes(7) == strikes(7, sorted(NAMES))
    assert strikes(7) != strikes(8)


def test_each_process_is_struck_before_one_is_struck_again() -> None:
    struck = [strike.name for strike in strikes(7)]
    assert all(sorted(struck[i : i + 4]) == sorted(NAMES) for i in range(0, 40, 4))


def test_every_way_is_used_and_only_where_it_is_possible() -> None:
    seen = {(strike.name, strike.how) for strike in strikes(7, count=400)}
    assert ("rabbitmq", "disk alarm") in seen
    assert {how for name, how in seen if name == "orders-api"} == {"kill", "terminate", "freeze"}


def test_strikes_are_as_far_apart_as_asked() -> None:
    after = [strike.after for strike in strikes(7, count=1000)]
    assert 9 < sum(after) / len(after) < 11
