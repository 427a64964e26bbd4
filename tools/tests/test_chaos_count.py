"""What `./dev chaos` counts as lost, doubled and out of order."""

from waybill_dev.chaos.count import CountRow, _changes, _set, _stream

EXPECTED = {("a", 1), ("a", 2), ("b", 1)}


def test_a_complete_stream_in_order_is_correct() -> None:
    line = _stream("", EXPECTED, [("a", 1), ("b", 1), ("a", 2)], once=True)
    assert line == CountRow("", 3, 3, 0, 0, 0, None)
    assert line.is_correct


def test_a_missing_event_is_lost() -> None:
    assert _stream("", EXPECTED, [("a", 1), ("b", 1)], once=True).lost == 1


def test_a_version_before_its_predecessor_is_out_of_order() -> None:
    line = _stream("", EXPECTED, [("a", 2), ("a", 1), ("b", 1)], once=False)
    assert (line.disordered, line.is_correct) == (1, False)


def test_a_repetition_is_double_only_where_each_event_comes_once() -> None:
    seen = [("a", 1), ("a", 2), ("a", 1), ("a", 2), ("b", 1)]
    assert _stream("", EXPECTED, seen, once=True).double == 2
    allowed = _stream("", EXPECTED, seen, once=False)
    assert (allowed.repeated, allowed.disordered, allowed.is_correct) == (2, 0, True)


def test_an_event_without_an_acknowledged_change_is_double() -> None:
    assert _stream("", EXPECTED, [*EXPECTED, ("c", 1)], once=False).double == 1
    assert _set("", {"x"}, ["x", "x", "y"]).double == 2


def test_a_missing_change_is_lost_and_an_unknown_order_is_double() -> None:
    line = _changes({"a": 2, "b": 1}, {"a": 1, "b": 1, "c": 1})
    assert (line.lost, line.double) == (1, 1)
