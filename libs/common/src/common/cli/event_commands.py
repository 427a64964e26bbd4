"""Operators' commands of a publishing service: its event log."""

import asyncio
import contextlib
import json
import re
import shlex
from collections.abc import Iterator, Sequence
from datetime import datetime
from importlib import import_module
from importlib.util import find_spec
from signal import SIGINT, SIGTERM
from threading import current_thread, main_thread
from time import monotonic
from typing import Any, Final

import click
from aiormq.exceptions import ChannelNotFoundEntity, DeliveryError, PublishError

from common.cli.roles import run
from common.cli.terminal import JSON, Moment, Pages, report
from common.db.driver import driver_connection
from common.messaging.asyncapi import event_types
from common.messaging.broker import BROKER_ERRORS
from common.messaging.cloudevents import rfc3339
from common.messaging.replay import Progress, Selection, count, published
from common.messaging.replay import replay as replay_events
from common.settings import ServiceSettings

TYPES: Final = click.option("--type", "types", multiple=True, help="Only this type; may be repeated.")
SUBJECTS: Final = click.option(
    "--subject", "subjects", multiple=True, help="Only events of this aggregate; may be repeated."
)
UNTIL: Final = click.option("--until", type=Moment(), help="Only what was published before this time, or so long ago.")
_PROGRESS_INTERVAL: Final = 1.0


@click.group()
def events() -> None:
    """The history of published events."""


@events.command()
@TYPES
@SUBJECTS
@click.option("--since", type=Moment(), default="1h", show_default=True, help="RFC 3339 time, or a duration like 24h.")
@UNTIL
@JSON
@click.pass_obj
def tail(
    load: Any,
    *,
    types: tuple[str, ...],
    subjects: tuple[str, ...],
    since: datetime,
    until: datetime | None,
    as_json: bool,
) -> None:
    """Published events, oldest first."""
    settings = load("ops")
    _refuse_unknown(settings, types)
    printed = Pages(["published_at", "position", "type", "subject", "version", "id"], as_json=as_json)
    run(_tail(settings, Selection(since=since, until=until, types=types, subjects=subjects), printed))


async def _tail(settings: ServiceSettings, selection: Selection, printed: Pages) -> None:
    async with driver_connection(settings.database_url.get_secret_value()) as connection:
        async for page in published(connection, selection, *await selection.bounds(connection)):
            printed.add(
                [
                    {
                        "published_at": rfc3339(logged.published_at),
                        "position": logged.position,
                        "type": logged.event.type,
                        "subject": logged.event.subject,
                        "version": logged.event.version,
                        "id": str(logged.event.id),
                        "data": json.loads(logged.event.data),
                    }
                    for logged in page
                ]
            )
    printed.end()


def _queue(_ctx: click.Context, _param: click.Parameter, name: str) -> str:
    if not re.fullmatch(r"[a-zA-Z0-9_.:@#,/+ -]{1,255}", name):
        raise click.BadParameter("not a valid queue name")
    return name


@events.command()
@click.option("--since", type=Moment(), help="RFC 3339 time, or a duration like 24h.")
@click.option("--after", type=click.IntRange(0), help="Instead of --since: the position that another replay reached.")
@UNTIL
@click.option("--to-queue", required=True, callback=_queue, help="The queue to send them to.")
@TYPES
@SUBJECTS
@click.option("--rate", type=click.IntRange(1), help="At most this many events a second.")
@click.option("--dry-run", is_flag=True, help="Only count them, and send nothing.")
@JSON
@click.pass_obj
def replay(
    load: Any,
    *,
    since: datetime | None,
    after: int | None,
    until: datetime | None,
    to_queue: str,
    types: tuple[str, ...],
    subjects: tuple[str, ...],
    rate: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Send published events to one queue again, in order.

    What ends it early, other than kill -9, makes it print the command that continues it. Until then it prints its
    position every second.
    """
    if (since is None) == (after is None):
        raise click.UsageError("give --since or --after")
    settings = load("ops")
    _refuse_unknown(settings, types)
    selection = Selection(since=since, after=after, until=until, types=types, subjects=subjects)
    if dry_run:
        total, first, last = run(count(settings, selection))
        text = f"{total} events" + (f", positions {first} to {last}" if total else "")
        report(text, as_json=as_json, events=total, first_position=first, last_position=last)
        return
    progress = Progress()
    command = _command(settings, selection, to_queue, rate)
    with _saying_how_to_continue(command, progress, settings, to_queue):
        run(_replay(settings, selection, to_queue, progress, rate=rate))
        if not progress.is_complete:
            raise click.ClickException(f"stopped, {progress.sent} events sent")
    report(
        f"position {progress.position} reached, {progress.sent} events sent to {to_queue}",
        as_json=as_json,
        sent=progress.sent,
        queue=to_queue,
        position=progress.position,
    )


async def _replay(
    settings: ServiceSettings, selection: Selection, to_queue: str, progress: Progress, *, rate: int | None
) -> None:
    stop, printed = asyncio.Event(), monotonic()

    def reached() -> None:
        nonlocal printed
        if monotonic() - printed >= _PROGRESS_INTERVAL:
            click.echo(f"position {progress.position} reached, {progress.sent} events sent", err=True)
            printed = monotonic()

    if current_thread() is main_thread():  # elsewhere no signal arrives
        for number in (SIGINT, SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await replay_events(
        settings, selection, to_queue=to_queue, progress=progress, reached=reached, rate=rate, stop=stop
    )


def _command(settings: ServiceSettings, selection: Selection, to_queue: str, rate: int | None) -> list[str]:
    """The words that repeat a replay, but for the position that it starts after."""
    words = ["python", "-m", settings.service, "events", "replay", "--to-queue", to_queue]
    words += [word for name in selection.types for word in ("--type", name)]
    words += [word for subject in selection.subjects for word in ("--subject", subject)]
    words += ["--until", rfc3339(selection.until)] if selection.until else []
    return words + (["--rate", str(rate)] if rate else [])


@contextlib.contextmanager
def _saying_how_to_continue(
    command: Sequence[str], progress: Progress, settings: ServiceSettings, to_queue: str
) -> Iterator[None]:
    """Ends a replay that failed or was stopped with a sentence, and the command for the rest once anything was sent."""
    try:
        yield
    except (ChannelNotFoundEntity, PublishError):
        bound = f"{settings.service}.replay; its owner binds it there, by its name"
        reason = f"there is no queue {to_queue!r} bound to {bound}"
    except DeliveryError:
        reason = f"{to_queue} refuses messages: is it full? Those already sent do no harm."
    except click.ClickException as error:
        reason = error.message
    except BROKER_ERRORS as error:
        reason = f"the connection to the broker ended: {type(error).__name__}"
    else:
        return
    if progress.sent:
        reason += f"\nTo send the rest: {shlex.join([*command, '--after', str(progress.position)])}"
    raise click.ClickException(reason)


def _refuse_unknown(settings: ServiceSettings, types: Sequence[str]) -> None:
    """Without this, a misspelt type would look like one that was never published."""
    package = settings.service
    if not types or find_spec(package) is None or find_spec(f"{package}.events") is None:
        return
    known = [event.type for event in event_types(import_module(f"{package}.events"))]
    for unknown in set(types).difference(known):
        lines = "\n".join(f"  {name}" for name in known)
        raise click.BadParameter(f"{settings.service} publishes no {unknown!r}, but\n{lines}", param_hint="--type")
