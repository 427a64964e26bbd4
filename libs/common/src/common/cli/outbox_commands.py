"""Operators' commands of a publishing service: the events in its outbox."""

import json
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import click
from sqlalchemy.ext.asyncio import AsyncSession

from common.cli.audit_commands import record_command
from common.cli.roles import run
from common.cli.terminal import JSON, plain, report, show
from common.db.database import Database
from common.db.driver import driver_connection
from common.messaging import unsendable
from common.settings import ServiceSettings

T = TypeVar("T")

_STATUS: Final = """
    SELECT count(*) AS pending, coalesce(extract(epoch FROM now() - min(occurred_at)), 0)::float8 AS age FROM outbox"""
_BY_TYPE: Final = """
    SELECT type, count(*) AS pending, round(extract(epoch FROM now() - min(occurred_at)), 3)::float8
           AS oldest_age_seconds
    FROM outbox GROUP BY type ORDER BY type"""


@click.group()
def outbox() -> None:
    """Events that wait to be published."""


@outbox.command()
@JSON
@click.pass_obj
def status(load: Any, as_json: bool) -> None:
    """How many events wait, and the age of the oldest."""
    counted = _with_connection(load, lambda connection: connection.fetchrow(_STATUS))
    row = {"pending": counted["pending"], "oldest_age_seconds": round(max(counted["age"], 0.0), 3)}
    if as_json:
        click.echo(json.dumps(row))
    else:
        show([row], list(row), as_json=False)


@outbox.command("show")
@click.option("--id", "event_id", type=click.UUID, help="Only this unsendable event, whole, as JSON.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 10_000), help="Unsendable events.")
@JSON
@click.pass_obj
def show_(load: Any, event_id: uuid.UUID | None, limit: int, as_json: bool) -> None:
    """What waits, by type, and each event that can't be sent, with its error."""

    async def query(connection: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        types = [dict(row) for row in await connection.fetch(_BY_TYPE)]
        return types, await unsendable.list_waiting(connection, limit=limit)

    if event_id is not None:
        click.echo(json.dumps(_whole(load, event_id), default=plain, indent=2))
        return
    types, waiting = _with_connection(load, query)
    if as_json:
        click.echo(json.dumps({"types": types, "unsendable": waiting}, default=plain))
        return
    show(types, ["type", "pending", "oldest_age_seconds"], as_json=False)
    click.echo("can't be sent:")
    show(waiting, ["id", "type", "subject", "version", "error", "found_at", "waiting_behind"], as_json=False)


def _whole(load: Any, event_id: uuid.UUID) -> dict[str, Any]:
    row: dict[str, Any] | None = _with_connection(load, lambda connection: unsendable.find(connection, event_id))
    if row is None:
        raise click.ClickException(f"no unsendable event {event_id}")
    return row | {"data": json.loads(row["data"])}


@outbox.command("skip")
@click.argument("event_id", type=click.UUID)
@click.option("--reason", required=True, help="Kept with the event.")
@JSON
@click.pass_obj
def skip_(load: Any, event_id: uuid.UUID, reason: str, as_json: bool) -> None:
    """Give up one event that can't be sent, so that the later events of its aggregate are published."""
    if not reason.strip():
        raise click.UsageError("--reason must not be empty")
    settings = load("ops")

    async def skip(session: AsyncSession, connection: Any) -> None:
        if not await unsendable.skip(connection, event_id, reason):
            raise click.ClickException(f"no waiting unsendable event {event_id}")
        await record_command(session, settings, "outbox.skipped", event_id, detail=reason)

    run(_in_transaction(settings, skip))
    report("skipped", as_json=as_json, skipped=event_id)


@outbox.command("retry")
@click.argument("event_ids", type=click.UUID, nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every event that can't be sent.")
@JSON
@click.pass_obj
def retry_(load: Any, event_ids: tuple[uuid.UUID, ...], everything: bool, as_json: bool) -> None:
    """Let the relay try events again, after a fix."""
    if bool(event_ids) == everything:
        raise click.UsageError("give event ids, or --all")
    chosen = None if everything else list(event_ids)
    settings = load("ops")

    async def retry(session: AsyncSession, connection: Any) -> set[uuid.UUID]:
        left = await unsendable.retry(connection, chosen)
        for event_id in sorted(left):
            await record_command(session, settings, "outbox.retried", event_id)
        return left

    retried = run(_in_transaction(settings, retry))
    missing = [event_id for event_id in event_ids if event_id not in retried]
    report(f"{len(retried)} left to the relay again", as_json=as_json, retried=len(retried), not_waiting=missing)
    if missing:
        raise click.ClickException("not waiting: " + ", ".join(map(str, missing)))


async def _in_transaction(settings: ServiceSettings, work: Callable[[AsyncSession, Any], Awaitable[T]]) -> T:
    """Calls `work` with a session and the driver's connection, in whose transaction it is."""
    async with Database(settings, role="ops") as database, database.transaction() as session:
        connection = await session.connection()
        await connection.exec_driver_sql("SELECT 1")  # begins the driver's transaction
        raw = await connection.get_raw_connection()
        return await work(session, raw.driver_connection)


def _with_connection(load: Any, work: Callable[[Any], Awaitable[Any]]) -> Any:
    settings = load("ops")

    async def main() -> Any:
        async with driver_connection(settings.database_url.get_secret_value()) as connection:
            return await work(connection)

    return run(main())
