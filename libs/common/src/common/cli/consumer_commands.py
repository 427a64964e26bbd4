"""Operators' commands of a service that consumes: messages it could not take, and its queues."""

import json
import uuid
from collections.abc import Sequence
from typing import Any

import aio_pika
import click
from aiormq.exceptions import PublishError

from common.cli.roles import run
from common.cli.terminal import JSON, plain, show, tell
from common.db.database import Database
from common.messaging import broker
from common.messaging import parked as parking
from common.settings import ServiceSettings


@click.group()
def parked() -> None:
    """Messages that could not be taken."""


@parked.command("list")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 10_000))
@JSON
@click.pass_obj
def list_(load: Any, limit: int, as_json: bool) -> None:
    """Messages that wait for a decision, oldest first."""

    async def query(settings: ServiceSettings, database: Database) -> list[dict[str, Any]]:
        async with database.transaction() as session:
            rows = await parking.waiting(session, _inbound(settings), limit=limit)
        return [dict(row) for row in rows]

    show(_with_database(load, query), parking.LISTED, as_json=as_json)


@parked.command("show")
@click.argument("message_id", type=click.UUID)
@JSON
@click.pass_obj
def show_(load: Any, message_id: uuid.UUID, as_json: bool) -> None:  # noqa: ARG001 - taken, as by all; it is JSON anyway
    """One message, whole."""

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
@click.option("--all", "everything", is_flag=True, help="Every waiting message.")
@JSON
@click.pass_obj
def replay_(load: Any, message_ids: tuple[uuid.UUID, ...], everything: bool, as_json: bool) -> None:
    """Give messages to the consumer again."""
    if bool(message_ids) == everything:
        raise click.UsageError("name the messages, or say --all")

    async def send(settings: ServiceSettings, database: Database) -> tuple[int, list[uuid.UUID]]:
        consumer, missing, sent = _inbound(settings), [], 0
        async with broker.connect(settings.amqp_url.get_secret_value(), f"{settings.service}-parked") as amqp:
            channel = await broker.raw_channel(amqp, confirms=True)
            chosen: Sequence[uuid.UUID] = message_ids
            if everything:
                async with database.transaction() as session:
                    chosen = [row["id"] for row in await parking.waiting(session, consumer, limit=1_000_000)]
            for message_id in chosen:
                async with database.transaction() as session:
                    if await parking.replay(session, consumer, message_id, channel):
                        sent += 1
                    else:
                        missing.append(message_id)
        return sent, missing

    try:
        sent, missing = _with_database(load, send)
    except PublishError:
        raise _no_queue(_inbound(load("ops"))) from None
    tell(f"{sent} sent to the consumer again", as_json=as_json, sent=sent, not_waiting=missing)
    if missing:
        raise click.ClickException("not waiting: " + ", ".join(map(str, missing)))


@parked.command("discard")
@click.argument("message_id", type=click.UUID)
@click.option("--reason", required=True, help="Kept with the message.")
@JSON
@click.pass_obj
def discard_(load: Any, message_id: uuid.UUID, reason: str, as_json: bool) -> None:
    """Give one message up, for a reason."""
    if not reason.strip():
        raise click.UsageError("say why")

    async def give_up(settings: ServiceSettings, database: Database) -> bool:
        async with database.transaction() as session:
            return await parking.discard(session, _inbound(settings), message_id, reason)

    if not _with_database(load, give_up):
        raise click.ClickException(f"no waiting message {message_id}")
    tell("discarded", as_json=as_json, discarded=message_id)


@click.command()
@JSON
@click.pass_obj
def queues(load: Any, as_json: bool) -> None:
    """Queues of this consumer: messages that are ready, and who consumes."""
    show(run(_queues(load("ops"))), ["name", "depth", "consumers"], as_json=as_json)


async def _queues(settings: ServiceSettings) -> list[dict[str, Any]]:
    inbound = _inbound(settings)
    names = [inbound, *(f"{inbound}.retry.{tier}" for tier in broker.RETRY_TIERS), f"{inbound}.parked"]
    async with broker.connect(settings.amqp_url.get_secret_value(), f"{settings.service}-queues") as amqp:
        rows = []
        for name in names:
            channel = await amqp.channel()
            try:
                found = (await channel.declare_queue(name, passive=True)).declaration_result
            except aio_pika.exceptions.ChannelNotFoundEntity:
                raise _no_queue(name) from None
            rows.append({"name": name, "depth": found.message_count, "consumers": found.consumer_count})
        return rows


def _no_queue(name: str) -> click.ClickException:
    return click.ClickException(f"no queue {name}: has `consume` ever run?")


def _inbound(settings: ServiceSettings) -> str:
    return f"{settings.service}.inbound"


def _with_database(load: Any, work: Any) -> Any:
    settings = load("ops")

    async def main() -> Any:
        database = Database.open(settings, role="ops")
        try:
            return await work(settings, database)
        finally:
            await database.close()

    return run(main())
