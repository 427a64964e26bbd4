"""A dashboard as SVG: a grid of line charts, each with its title, scale and legend."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from html import escape

from waybill_dev.dashboards.prometheus import Series

WIDTH, HEIGHT = 560, 210  # of one panel
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 34, 46
MARGIN = 10
LEGEND_ROWS = 8
COLOURS = ("#7eb26d", "#eab839", "#6ed0e0", "#ef843c", "#e24d42", "#5195ce", "#ba43a9", "#b7a6d8")
STYLE = (
    "text{font:11px system-ui,sans-serif;fill:#c7d0d9}.title{font-weight:600;font-size:13px}"
    ".grid{stroke:#34373d}.line{fill:none;stroke-width:1.6}.panel{fill:#181b1f;stroke:#2c3036}"
)


@dataclass(frozen=True)
class Panel:
    title: str
    unit: str
    """Grafana's: `s`, `bytes`, `percentunit`, or anything else for a number."""
    column: int
    row: int
    lines: list[tuple[str, Series]]
    """Each with its legend."""


def draw(title: str, panels: list[Panel], start: float, end: float) -> str:
    columns = 1 + max(panel.column for panel in panels)
    rows = 1 + max(panel.row for panel in panels)
    width, height = columns * (WIDTH + MARGIN) + MARGIN, rows * (HEIGHT + MARGIN) + MARGIN + 26
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        f'<rect width="{width}" height="{height}" fill="#111217"/>',
        f'<text class="title" x="{MARGIN}" y="24">{escape(title)}</text>',
    ]
    for panel in panels:
        x, y = MARGIN + panel.column * (WIDTH + MARGIN), 36 + panel.row * (HEIGHT + MARGIN)
        parts += [f'<g transform="translate({x} {y})">', *_draw_panel(panel, start, end), "</g>"]
    return "\n".join([*parts, "</svg>", ""])


def _draw_panel(panel: Panel, start: float, end: float) -> list[str]:
    values = [value for _, series in panel.lines for _, value in series.points if math.isfinite(value)]
    top = _round_up(max(values, default=0) or 1)
    show = _format(panel.unit)
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def place(time: float, value: float) -> str:
        x = LEFT + (time - start) / (end - start) * (right - LEFT)
        return f"{x:.1f},{bottom - value / top * (bottom - TOP):.1f}"

    parts = [
        f'<rect class="panel" width="{WIDTH}" height="{HEIGHT}" rx="3"/>',
        f'<text class="title" x="12" y="20">{escape(panel.title)}</text>',
    ]
    for step in range(5):
        y = bottom - step / 4 * (bottom - TOP)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{right}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{show(top * step / 4)}</text>')
    parts.append(f'<text x="{LEFT}" y="{bottom + 14}">0 s</text>')
    parts.append(f'<text x="{right}" y="{bottom + 14}" text-anchor="end">{end - start:.0f} s</text>')
    legend = LEFT
    for number, (name, series) in enumerate(panel.lines):
        colour = COLOURS[number % len(COLOURS)]
        points = " ".join(place(time, value) for time, value in series.points if math.isfinite(value))
        parts.append(f'<polyline class="line" stroke="{colour}" points="{points}"/>')
        if number < LEGEND_ROWS and legend + 7 * len(name) < right:
            parts.append(f'<rect x="{legend}" y="{bottom + 26}" width="10" height="3" fill="{colour}"/>')
            parts.append(f'<text x="{legend + 14}" y="{bottom + 31}">{escape(name)}</text>')
            legend += 26 + int(6.2 * len(name))
    return parts


def _round_up(value: float) -> float:
    """The next 1, 2, 4 or 8 times a power of ten, so that quarters of it are short numbers."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * factor for factor in (1, 2, 4, 8, 10) if power * factor >= value)


def _format(unit: str) -> Callable[[float], str]:
    if unit == "s":
        return lambda value: f"{value:g} s" if value >= 1 or value == 0 else f"{value * 1000:g} ms"
    if unit == "bytes":
        return lambda value: f"{value / 1e6:g} MB"
    if unit == "percentunit":
        return lambda value: f"{value * 100:g} %"
    return lambda value: f"{value:g}"
