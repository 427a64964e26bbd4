"""Operators' commands of a publishing service: its event log."""

import json
import re
from collections.abc import Sequence
from datetime import datetime
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import click
from aiormq.exceptions import ChannelNotFoundEntity, DeliveryError, PublishError

from common.cli.roles import run
from common.cli.terminal import JSON, Moment, Pages, report
from common.db.driver import driver_connection
from common.messaging.asyncapi import event_types
from common.messaging.cloudevents import rfc3339
from common.messaging.replay import published
from common.messaging.replay import replay as replay_events
from common.settings import ServiceSettings


@click.group()
def events() -> None:
    """The history of published events."""


@events.command()
@click.option("--type", "types", multiple=True, help="Only this type; may be repeated.")
@click.option("--since", type=Moment(), default="1h", show_default=True, help="RFC 3339 time, or a duration like 24h.")
@JSON
@click.pass_obj
def tail(load: Any, types: tuple[str, ...], since: datetime, as_json: bool) -> None:
    """Published events, oldest first."""
    settings = load("ops")
    _refuse_unknown(settings, types)
    run(_tail(settings, since, types, Pages(["published_at", "type", "subject", "version", "id"], as_json=as_json)))


async def _tail(settings: ServiceSettings, since: datetime, types: Sequence[str], printed: Pages) -> None:
    async with driver_connection(settings.database_url.get_secret_value()) as connection:
        async for page in published(connection, since, types):
            printed.add(
                [
                    {
                        "published_at": rfc3339(logged.published_at),
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
@click.option("--since", type=Moment(), required=True, help="RFC 3339 time, or a duration like 24h.")
@click.option("--to-queue", required=True, callback=_queue, help="The queue to send them to.")
@click.option("--type", "types", multiple=True, help="Only this type; may be repeated.")
@JSON
@click.pass_obj
def replay(load: Any, since: datetime, to_queue: str, types: tuple[str, ...], as_json: bool) -> None:
    """Send published events to one queue again."""
    settings = load("ops")
    _refuse_unknown(settings, types)
    try:
        count = run(replay_events(settings, since=since, to_queue=to_queue, types=types))
    except (ChannelNotFoundEntity, PublishError):
        raise click.ClickException(
            f"there is no queue {to_queue!r} bound to {settings.service}.replay; its owner binds it there, by its name"
        ) from None
    except DeliveryError:
        raise click.ClickException(f"{to_queue} refuses messages: is it full? Those already sent do no harm.") from None
    report(f"{count} events sent to {to_queue}", as_json=as_json, sent=count, queue=to_queue)


def _refuse_unknown(settings: ServiceSettings, types: Sequence[str]) -> None:
    """Without this, a misspelt type would look like one that was never published."""
    package = settings.service
    if not types or find_spec(package) is None or find_spec(f"{package}.events") is None:
        return
    known = [event.type for event in event_types(import_module(f"{package}.events"))]
    for unknown in set(types).difference(known):
        lines = "\n".join(f"  {name}" for name in known)
        raise click.BadParameter(f"{settings.service} publishes no {unknown!r}, but\n{lines}", param_hint="--type")
