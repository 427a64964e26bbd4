"""Operators' commands of a consuming service: parked messages and queues."""

import json
import uuid
from collections.abc import Sequence
from typing import Any

import click
from aiormq.exceptions import ChannelNotFoundEntity, PublishError

from common.cli.audit_commands import record_command
from common.cli.roles import run
from common.cli.terminal import JSON, plain, report, show
from common.db.database import Database
from common.messaging import broker
from common.messaging import parked as parking
from common.messaging.partitions import numbered_queues
from common.messaging.topology import RETRY_TIERS, StillConsumed, move_retry_queues
from common.settings import ServiceSettings


@click.group()
def parked() -> None:
    """Messages that could not be processed."""


@parked.command("list")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 10_000))
@JSON
@click.pass_obj
def list_(load: Any, limit: int, as_json: bool) -> None:
    """Messages that wait for a decision, oldest first."""

    async def query(settings: ServiceSettings, database: Database) -> list[dict[str, Any]]:
        async with database.transaction() as session:
            rows = await parking.list_open(session, _inbound(settings), limit=limit)
        return [dict(row) for row in rows]

    show(_with_database(load, query), parking.LISTED, as_json=as_json)


@parked.command("show")
@click.argument("message_id", type=click.UUID)
@JSON
@click.pass_obj
def show_(load: Any, message_id: uuid.UUID, as_json: bool) -> None:  # noqa: ARG001 - accepted for symmetry; the output is always JSON
    """One message with body and properties."""

    async def query(settings: ServiceSettings, database: Database) -> dict[str, Any] | None:
        async with database.transaction() as session:
            row = await parking.find(session, _inbound(settings), message_id)
        return dict(row) if row else None

    row = _with_database(load, query)
    if row is None:
        raise click.ClickException(f"no parked message {message_id}")
    del row["digest"]
    row["body"] = row["body"].decode(errors="backslashreplace")
    click.echo(json.dumps(row, default=plain, indent=2))


@parked.command("replay")
@click.argument("message_ids", type=click.UUID, nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every open message.")
@JSON
@click.pass_obj
def replay_(load: Any, message_ids: tuple[uuid.UUID, ...], everything: bool, as_json: bool) -> None:
    """Send messages to the consumer again."""
    if bool(message_ids) == everything:
        raise click.UsageError("give message ids, or --all")

    async def send(settings: ServiceSettings, database: Database) -> tuple[int, list[uuid.UUID]]:
        consumer, missing, sent = _inbound(settings), [], 0
        async with broker.connect(settings.amqp_url.get_secret_value(), f"{settings.service}-parked") as amqp:
            channel = await broker.raw_channel(amqp, confirms=True)
            chosen: Sequence[uuid.UUID] = message_ids
            if everything:
                async with database.transaction() as session:
                    chosen = [row["id"] for row in await parking.list_open(session, consumer, limit=1_000_000)]
            for message_id in chosen:
                # Recorded before it is sent: nothing is ever sent again without a record of who did it.
                async with database.transaction() as session:
                    row = await parking.find(session, consumer, message_id)
                    if row is not None and row["resolved_at"] is None:
                        await record_command(session, settings, "parked.replayed", message_id, detail=row["type"])
                async with database.transaction() as session:
                    if await parking.replay(session, consumer, message_id, channel):
                        sent += 1
                    else:
                        missing.append(message_id)
        return sent, missing

    try:
        sent, missing = _with_database(load, send)
    except (PublishError, ChannelNotFoundEntity):
        raise _no_queue(_inbound(load("ops"))) from None
    report(f"{sent} sent to the consumer again", as_json=as_json, sent=sent, not_waiting=missing)
    if missing:
        raise click.ClickException("not waiting: " + ", ".join(map(str, missing)))


@parked.command("discard")
@click.argument("message_id", type=click.UUID)
@click.option("--reason", required=True, help="Kept with the message.")
@JSON
@click.pass_obj
def discard_(load: Any, message_id: uuid.UUID, reason: str, as_json: bool) -> None:
    """Discard one message."""
    if not reason.strip():
        raise click.UsageError("--reason must not be empty")

    async def discard(settings: ServiceSettings, database: Database) -> bool:
        async with database.transaction() as session:
            discarded = await parking.discard(session, _inbound(settings), message_id, reason)
            if discarded:
                await record_command(session, settings, "parked.discarded", message_id, detail=reason)
            return discarded

    if not _with_database(load, discard):
        raise click.ClickException(f"no waiting message {message_id}")
    report("discarded", as_json=as_json, discarded=message_id)


@click.command()
@click.option(
    "--move", is_flag=True, help="Recreate the retry queues of release 0.1.0; no process may consume meanwhile."
)
@JSON
@click.pass_obj
def queues(load: Any, move: bool, as_json: bool) -> None:
    """Depth and consumers of each queue."""
    if move:
        try:
            moved = run(_move(load("ops")))
        except StillConsumed as queue:
            raise click.ClickException(f"stop the consume role first: {queue} has consumers") from None
        report(f"moved, {moved} messages sent to the consumer", as_json=as_json, moved=moved)
        return
    show(run(_queues(load("ops"))), ["name", "depth", "consumers"], as_json=as_json)


async def _move(settings: ServiceSettings) -> int:
    async with broker.connect(settings.amqp_url.get_secret_value(), f"{settings.service}-queues") as amqp:
        return await move_retry_queues(amqp, settings.service)


async def _queues(settings: ServiceSettings) -> list[dict[str, Any]]:
    inbound = _inbound(settings)
    async with broker.connect(settings.amqp_url.get_secret_value(), f"{settings.service}-queues") as amqp:
        rows = []
        numbered = await numbered_queues(amqp, settings.service)
        for name in (inbound, *numbered, *(f"{inbound}.retry.{tier}" for tier in RETRY_TIERS), f"{inbound}.parked"):
            channel = await amqp.channel()
            try:
                found = (await channel.declare_queue(name, passive=True)).declaration_result
            except ChannelNotFoundEntity:
                raise _no_queue(name) from None
            rows.append({"name": name, "depth": found.message_count, "consumers": found.consumer_count})
        return rows


def _no_queue(name: str) -> click.ClickException:
    return click.ClickException(f"no queue {name}: has the consume role ever run?")


def _inbound(settings: ServiceSettings) -> str:
    return f"{settings.service}.inbound"


def _with_database(load: Any, work: Any) -> Any:
    settings = load("ops")

    async def main() -> Any:
        async with Database(settings, role="ops") as database:
            return await work(settings, database)

    return run(main())
