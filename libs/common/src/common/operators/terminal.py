"""How operators' commands read times and print rows: tables for people, `--json` for scripts."""

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table

from common.events import rfc3339

JSON: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class Moment(click.ParamType[datetime]):
    """An RFC 3339 time, or how long ago: 90s, 15m, 24h, 30d."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        if match := re.fullmatch(r"(\d{1,6})([smhd])", value):
            return datetime.now(UTC) - timedelta(**{_UNITS[match[2]]: int(match[1])})
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is neither an RFC 3339 time nor a duration like 24h", param, ctx)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def show(rows: Sequence[dict[str, Any]], columns: Sequence[str], *, as_json: bool) -> None:
    """Prints rows as JSON or as a table of `columns`."""
    if as_json:
        click.echo(json.dumps(list(rows), default=plain))
        return
    table = Table(*columns)
    for row in rows:
        table.add_row(*("-" if row[column] is None else str(row[column]) for column in columns))
    Console().print(table if rows else "none")


def plain(value: Any) -> str:
    return rfc3339(value) if isinstance(value, datetime) else str(value)
