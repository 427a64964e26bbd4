"""Bar charts and line charts as PNG, with Pillow's built-in font, so that pictures are the same on every machine."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageFont

WIDTH: Final = 1640
LEFT, RIGHT, TOP, ROW = 640, 60, 110, 52
INK, FAINT, LINE = "#24292f", "#6e7781", "#d0d7de"
OURS, CEILING, MISSED = "#2f81c7", "#aab4be", "#d9822b"
PLAIN: Final = str.maketrans({"÷": "/", "→": "to", "≥": ">=", "≤": "<=", "µ": "u", "…": "...", "–": "-"})
"""The built-in font has no more than Latin letters."""


@dataclass(frozen=True)
class Bar:
    """`goal` is a mark on the bar. `is_ceiling` is what others are compared with."""

    label: str
    value: float
    text: str
    goal: float | None = None
    is_met: bool | None = None
    is_ceiling: bool = False

    @property
    def colour(self) -> str:
        return CEILING if self.is_ceiling else MISSED if self.is_met is False else OURS


@dataclass(frozen=True)
class Chart:
    """Bars of one scale."""

    title: str
    bars: Sequence[Bar]


class Canvas:
    def __init__(self, height: int, title: str, subtitle: str) -> None:
        self.image = Image.new("RGB", (WIDTH, height), "white")
        self.draw = ImageDraw.Draw(self.image)
        self.text(40, 30, title, size=34)
        self.text(40, 74, subtitle, size=20, colour=FAINT)

    def text(self, x: float, y: float, text: str, *, size: int = 22, colour: str = INK, anchor: str = "la") -> None:
        font = ImageFont.load_default(size)
        self.draw.text((x, y), text.translate(PLAIN), fill=colour, font=font, anchor=anchor)

    def save(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self.image.quantize(64).save(file, optimize=True)


def draw_bars(file: Path, title: str, subtitle: str, charts: Sequence[Chart]) -> None:
    height = TOP + 20 + sum(60 + ROW * len(chart.bars) for chart in charts)
    canvas, y = Canvas(height, title, subtitle), TOP + 20
    for chart in charts:
        canvas.text(40, y, chart.title, size=24, colour=FAINT)
        y += 44
        longest = max(max(bar.value, bar.goal or 0) for bar in chart.bars) or 1
        scale = (WIDTH - LEFT - RIGHT - 190) / longest
        for bar in chart.bars:
            middle, end = y + ROW / 2 - 4, LEFT + bar.value * scale
            canvas.text(LEFT - 20, middle, bar.label, anchor="rm")
            canvas.draw.rectangle((LEFT, y, max(end, LEFT + 2), y + ROW - 12), fill=bar.colour)
            if bar.goal is not None:
                mark = LEFT + bar.goal * scale
                canvas.draw.line((mark, y - 5, mark, y + ROW - 7), fill=INK, width=3)
                end = max(end, mark)
            canvas.text(end + 14, middle, bar.text, anchor="lm")
            y += ROW
        y += 16
    canvas.save(file)


def draw_line(
    file: Path, title: str, subtitle: str, points: Sequence[tuple[float, float]], *, axes: tuple[str, str]
) -> None:
    """One line, with a logarithmic scale upwards and labelled points. `axes` names x and y."""
    canvas, height = Canvas(760, title, subtitle), 760
    left, right, top, bottom = 150, WIDTH - 80, 160, height - 110
    widest = max(x for x, _ in points) * 1.05
    lowest, highest = (10.0 ** f(math.log10(e(y for _, y in points))) for f, e in ((math.floor, min), (math.ceil, max)))

    def place(x: float, y: float) -> tuple[float, float]:
        share = (math.log10(y) - math.log10(lowest)) / (math.log10(highest) - math.log10(lowest))
        return left + x / widest * (right - left), bottom - share * (bottom - top)

    for power in range(round(math.log10(lowest)), round(math.log10(highest)) + 1):
        _, y = place(0, 10.0**power)
        canvas.draw.line((left, y, right, y), fill=LINE, width=2)
        canvas.text(left - 16, y, f"{10.0**power:,g}", anchor="rm", colour=FAINT)
    places = [place(x, y) for x, y in points]
    canvas.draw.line(places, fill=OURS, width=5, joint="curve")
    for (x, y), (at, up) in zip(points, places, strict=True):
        canvas.draw.ellipse((at - 7, up - 7, at + 7, up + 7), fill=OURS)
        canvas.text(at, up - 16, f"{y:,.0f}", anchor="mb")
        canvas.text(at, bottom + 16, f"{x:,.0f}", anchor="ma", colour=FAINT)
    canvas.text((left + right) / 2, bottom + 56, axes[0], anchor="ma", colour=FAINT)
    canvas.text(40, top - 50, axes[1], colour=FAINT)
    canvas.save(file)
