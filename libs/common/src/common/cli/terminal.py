"""Input and output of operators' commands: times, tables for people, `--json` for scripts."""

import json
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import click
from aiormq.exceptions import ChannelAccessRefused
from rich.console import Console
from rich.table import Table
from rich.text import Text
from sqlalchemy.exc import DBAPIError

from common.db.driver import DRIVER_ERRORS
from common.messaging.cloudevents import rfc3339

REFUSALS: Final = (ChannelAccessRefused, DBAPIError, *DRIVER_ERRORS)
"""Raised when a reachable server refuses: wrong password, still starting, no such table."""
JSON: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
OLD_KEY: Final = click.option(
    "--old-key",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the previous key encryption key, in base64.",
)
"""Of the commands that encrypt secrets again after a change of the key."""
_WIDE: Final = 250
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class Moment(click.ParamType[datetime]):
    """An RFC 3339 time, or how long ago: 90s, 15m, 24h, 30d."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            if match := re.fullmatch(r"(\d{1,6})([smhd])", value):
                return datetime.now(UTC) - timedelta(**{_UNITS[match[2]]: int(match[1])})
            moment = datetime.fromisoformat(value)
            return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is neither an RFC 3339 time nor a duration like 24h", param, ctx)


def show(rows: Sequence[dict[str, Any]], columns: Sequence[str], *, as_json: bool) -> None:
    """Prints rows as JSON or as a table of `columns`."""
    printed = Pages(columns, as_json=as_json)
    printed.add(rows)
    printed.end()


def report(sentence: str, *, as_json: bool, **facts: Any) -> None:
    """Prints the result: a sentence for people, or `facts` as JSON for scripts."""
    click.echo(json.dumps(facts, default=plain) if as_json else sentence)


class Pages:
    """Prints rows page by page as they are read, so that any number fits: one JSON list, or tables."""

    def __init__(self, columns: Sequence[str], *, as_json: bool) -> None:
        self._columns = columns
        self._as_json = as_json
        self._started = False
        # A file or a pipe needs no wrapping.
        self._console = Console() if sys.stdout.isatty() else Console(width=_WIDE)

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        if not rows:
            return
        if self._as_json:
            items = json.dumps(list(rows), default=plain)[1:-1]
            click.echo(f"{',' if self._started else '['}{items}", nl=False)
        else:
            self._console.print(self._table(rows))
        self._started = True

    def end(self) -> None:
        if self._as_json:
            click.echo("]" if self._started else "[]")
        elif not self._started:
            self._console.print("none")

    def _table(self, rows: Sequence[dict[str, Any]]) -> Table:
        table = Table()
        for column in self._columns:
            table.add_column(column, overflow="fold")  # a truncated id could not be pasted into the next command
        for row in rows:
            table.add_row(*("-" if row[column] is None else _text(row[column]) for column in self._columns))
        return table


def _text(value: Any) -> Text:
    """Text written by others, without mark-up or terminal control characters."""
    return Text("".join(char if char.isprintable() else ascii(char)[1:-1] for char in str(value)))


def plain(value: Any) -> str:
    return rfc3339(value) if isinstance(value, datetime) else str(value)
