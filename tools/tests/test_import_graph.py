"""`./dev graph`."""

from waybill_dev.base.state import find_state
from waybill_dev.checks.import_graph import _cyclic, shapes


def test_folders_that_import_each_other_in_a_circle_are_counted_and_those_around_it_are_not() -> None:
    circle = {("a", "b"), ("b", "c"), ("c", "a")}
    assert _cyclic({*circle, ("top", "a"), ("c", "below"), ("below", "end")}) == {"a", "b", "c"}
    assert _cyclic({("a", "b"), ("b", "c"), ("a", "c")}) == set()


def test_every_package_is_measured_and_none_imports_upward_or_in_a_circle() -> None:
    found = {shape.package: shape for shape in shapes(find_state().checkout)}
    assert {"common", "orders", "waybill_dev"} <= found.keys()
    assert all(shape.upward == 0 and shape.arrows > 0 and shape.files > 0 for shape in found.values())
    assert {name: shape.in_cycles for name, shape in found.items()} == dict.fromkeys(found, 0)
