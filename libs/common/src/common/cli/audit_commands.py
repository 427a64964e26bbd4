"""The operators' command `audit`, and how operators' other commands record what they do."""

import getpass
import os
from datetime import datetime
from importlib import import_module
from typing import Any

import click
from sqlalchemy.ext.asyncio import AsyncSession

from common.cli.roles import run
from common.cli.terminal import JSON, Moment, show
from common.db.database import Database
from common.messaging import audit as trail
from common.settings import ServiceSettings


@click.group()
def audit() -> None:
    """What administrators and operators did."""


@audit.command()
@click.option("--since", type=Moment(), default="24h", show_default=True, help="RFC 3339 time, or a duration like 24h.")
@click.option("--limit", default=1000, show_default=True, type=click.IntRange(1, 100_000), help="The newest ones.")
@JSON
@click.pass_obj
def tail(load: Any, since: datetime, limit: int, as_json: bool) -> None:
    """Acts, oldest first."""
    settings = load("ops")

    async def query() -> list[dict[str, Any]]:
        async with Database(settings, role="ops") as database, database.transaction() as session:
            return [dict(row) for row in await trail.acts_since(session, since, limit=limit)]

    show(run(query()), trail.COLUMNS, as_json=as_json)


def operator() -> str:
    """Who runs this command: `operator:` and the login name."""
    try:
        return f"operator:{getpass.getuser()}"
    except (KeyError, OSError):  # in a container, the user may have no name
        return f"operator:uid-{os.getuid()}"


async def record_command(
    session: AsyncSession, settings: ServiceSettings, action: str, subject: object, *, detail: str | None = None
) -> None:
    """Records what an operator's command does, in its transaction; as an event too where the service has one for it."""
    await trail.record_act(
        session, action, subject, actor=operator(), detail=detail, event=_audit_event(settings.service)
    )


def _audit_event(service: str) -> Any:
    """The service's event for acts, or None if it publishes none."""
    events = f"{service}.events"
    try:
        return getattr(import_module(events), "AuditRecorded", None)
    except ModuleNotFoundError as error:
        if error.name not in {service, events}:
            raise
        return None
