"""`./dev mails`: pictures of all mails."""

import html
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import click
from PIL import Image, ImageChops

from waybill_dev.base.state import find_state
from waybill_dev.errors import LocalError
from waybill_dev.progress import say

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
VIEWS = (("light", 600), ("dark", 600), ("light", 320), ("dark", 320))  # colour scheme, and width in pixels
GAP = 12
ACROSS = sum(width for _, width in VIEWS) + GAP * (len(VIEWS) + 1)
DOWN = 800  # the room for one mail; a browser draws 16,384 pixels at most
GREY = "#c3c9d1"
COLOURS = 64
STYLE = f"""
body {{ margin: 0; background: {GREY}; }}
section {{ box-sizing: border-box; height: {DOWN}px; padding: {GAP}px; }}
section {{ display: flex; gap: {GAP}px; align-items: start; }}
iframe {{ border: 0; }}
"""


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default=Path("docs/images/mails"))
def mails(folder: Path) -> None:
    """Draws each mail in a real browser.

    Light and dark, wide and on a small telephone. Writes a PNG file for each kind into FOLDER (docs/images/mails).
    """
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        raise LocalError(f"no browser found: install one of {', '.join(BROWSERS)}")
    target = find_state().checkout / folder
    target.mkdir(parents=True, exist_ok=True)
    kinds = _preview().split()
    drawn = _drawn(program, (_preview(kind, "--html") for kind in kinds), DOWN * len(kinds))
    for number, kind in enumerate(kinds):
        _cropped(drawn.crop((0, DOWN * number, ACROSS, DOWN * (number + 1)))).quantize(COLOURS).save(
            target / f"{kind}.png", optimize=True
        )
    say(f"wrote {len(kinds)} pictures to {target}")


def _preview(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "notifier", "preview", *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise LocalError(f"preview {' '.join(words)}: {done.stderr}")
    return done.stdout


def _drawn(program: str, previews: Iterable[str], height: int) -> Image.Image:
    """All mails below each other. A frame has its own colour scheme, and is as high as its mail."""
    sections = "".join(f"<section>{''.join(_frame(mail, *view) for view in VIEWS)}</section>" for mail in previews)
    with tempfile.TemporaryDirectory(prefix="mails-") as temporary:
        page, shot = Path(temporary, "page.html"), Path(temporary, "shot.png")
        page.write_text(f"<!doctype html><meta charset=utf-8><style>{STYLE}</style>{sections}")
        options = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=10000")
        places = (f"--user-data-dir={temporary}/profile", f"--window-size={ACROSS},{height}", f"--screenshot={shot}")
        subprocess.run([program, *options, *places, page.as_uri()], capture_output=True, check=True, timeout=120)
        return Image.open(shot).convert("RGB")


def _frame(mail: str, scheme: str, width: int) -> str:
    grow = "style.height = contentDocument.documentElement.scrollHeight + 'px'"
    head = f'<iframe width="{width}" style="color-scheme: {scheme}" onload="{grow}"'
    return f'{head} srcdoc="{html.escape(mail)}"></iframe>'


def _cropped(image: Image.Image) -> Image.Image:
    """Without the empty part below the highest frame."""
    box = ImageChops.difference(image, Image.new("RGB", image.size, GREY)).getbbox()
    return image if box is None else image.crop((0, 0, image.width, min(box[3] + GAP, image.height)))
