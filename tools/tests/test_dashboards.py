"""The pictures of the dashboards. `./dev dashboards` itself needs minutes and Prometheus, and is run by hand."""

import math
from xml.etree import ElementTree as ET

import pytest

from waybill_dev.commands.dashboards import _legend
from waybill_dev.dashboards.drawing import Panel, _format, _round_up, draw
from waybill_dev.dashboards.prometheus import Series

SVG = "{http://www.w3.org/2000/svg}"


def picture(*lines: tuple[str, Series]) -> ET.Element:
    panel = Panel("Waiting <now>", "s", column=1, row=0, lines=list(lines))
    return ET.fromstring(draw("Events & orders", [panel], start=0.0, end=10.0))  # noqa: S314 - our own text


def test_each_series_is_a_line_with_its_legend_and_a_gap_is_no_point() -> None:
    drawn = picture(
        ("orders", Series({}, [(0.0, 0.0), (5.0, math.nan), (10.0, 2.0)])), ("users <a>", Series({}, [(0.0, 1.0)]))
    )
    first, second = drawn.iter(f"{SVG}polyline")
    (left, bottom), (right, top) = (map(float, point.split(",")) for point in first.attrib["points"].split())
    assert left < right
    assert bottom > top, "a larger value is drawn higher"
    assert len(second.attrib["points"].split()) == 1
    texts = {text.text for text in drawn.iter(f"{SVG}text")}
    assert {"Events & orders", "Waiting <now>", "orders", "users <a>", "2 s", "500 ms"} <= texts


def test_a_panel_without_data_is_drawn() -> None:
    assert list(picture().iter(f"{SVG}rect"))


@pytest.mark.parametrize(("value", "top"), [(0.003, 0.004), (1, 1), (3, 4), (9, 10), (1100, 2000)])
def test_the_scale_ends_at_a_short_number_that_holds_the_largest_value(value: float, top: float) -> None:
    assert _round_up(value) == pytest.approx(top)


@pytest.mark.parametrize(
    ("unit", "value", "shown"),
    [("s", 0.25, "250 ms"), ("bytes", 2e6, "2 MB"), ("percentunit", 0.5, "50 %"), ("", 7, "7")],
)
def test_a_figure_has_its_unit(unit: str, value: float, shown: str) -> None:
    assert _format(unit)(value) == shown


def test_a_legend_names_the_series_by_its_labels() -> None:
    assert _legend("{{service}} {{tier}} 99 %", {"service": "orders"}) == "orders  99 %"
