"""Operators' commands of notifier: deliveries, and previews of mails."""

import json
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, Final, TypeVar, cast

import click
from sqlalchemy.ext.asyncio import AsyncSession

from common.cli.roles import run
from common.cli.terminal import JSON, Moment, plain, report, show
from common.db.database import Database
from notifier import operations
from notifier.mail.samples import sample
from notifier.models import TITLES, Kind
from notifier.operations import DeliveryId

T = TypeVar("T")

_CHUNK: Final = 500
"""Deliveries that are sent again in one transaction."""

_STATE = click.option("--state", type=click.Choice(operations.STATES))
_SINCE = click.option("--since", type=Moment(), help="Created since then: an RFC 3339 time, or a duration such as 24h.")


@click.command()
@click.argument("kind", metavar="[KIND]", required=False, type=click.Choice(list(TITLES)))
@click.option("--html", is_flag=True, help="The HTML, not the text.")
def preview(kind: str | None, html: bool) -> None:
    """Prints the mail of a kind with made-up values. Without KIND, lists the kinds."""
    if kind is None:
        click.echo("\n".join(TITLES))
        return
    mail = sample(cast("Kind", kind))
    click.echo(mail.html if html else f"Subject: {mail.subject}\n\n{mail.text}", nl=False)


@click.group()
def deliveries() -> None:
    """Mails and posts to webhooks, and sending them again."""


@deliveries.command("list")
@_STATE
@click.option("--channel", type=click.Choice(operations.CHANNELS))
@_SINCE
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 100_000))
@JSON
@click.pass_obj
def list_(  # noqa: PLR0917 - click passes them by name
    load: Any, state: str | None, channel: str | None, since: datetime | None, limit: int, as_json: bool
) -> None:
    """The newest deliveries first."""
    rows = _in_transaction(
        load, lambda s: operations.deliveries(s, state=state, channel=channel, since=since, limit=limit)
    )
    show(rows, operations.LISTED, as_json=as_json)


@deliveries.command("show")
@click.argument("delivery_id", metavar="ID")
@JSON
@click.pass_obj
def show_(load: Any, delivery_id: str, as_json: bool) -> None:
    """One delivery."""
    row = _in_transaction(load, lambda session: operations.delivery(session, _parsed(delivery_id)))
    if row is None:
        raise click.ClickException(f"no delivery {delivery_id}")
    if as_json:
        click.echo(json.dumps(row, default=plain))
    else:
        show([{"field": name, "value": value} for name, value in row.items()], ["field", "value"], as_json=False)


@deliveries.command("resend")
@click.argument("delivery_ids", nargs=-1, metavar="[ID]…")
@click.option("--all", "everything", is_flag=True, help="All in --state.")
@_STATE
@_SINCE
@JSON
@click.pass_obj
def resend_(  # noqa: PLR0917 - as above
    load: Any,
    delivery_ids: tuple[str, ...],
    everything: bool,
    state: str | None,
    since: datetime | None,
    as_json: bool,
) -> None:
    """Sends deliveries again that were sent, failed or cancelled."""
    if bool(delivery_ids) == everything:
        raise click.UsageError("give ids of deliveries, or --all with --state")
    if everything and state is None:
        raise click.UsageError("--all needs --state")
    if not everything and (state is not None or since is not None):
        raise click.UsageError("--state and --since belong to --all")
    ids = [_parsed(each) for each in delivery_ids]

    if everything:
        rows = _in_transaction(
            load,
            lambda session: operations.deliveries(session, state=state, channel=None, since=since, limit=None),
        )
        ids = [_parsed(row["id"]) for row in rows]
    done = _resent(load, ids)
    resent, missing = sorted(map(str, done)), [] if everything else sorted(map(str, set(ids) - done))
    report(f"{len(resent)} will be sent again", as_json=as_json, resent=resent, not_settled=missing)
    if missing:
        raise click.ClickException("not settled, or unknown: " + ", ".join(missing))


def _resent(load: Any, delivery_ids: list[DeliveryId]) -> set[DeliveryId]:
    """In transactions of a chunk each, as one locks the webhooks that it has deliveries of."""
    ordered, done = sorted(delivery_ids, key=str), set[DeliveryId]()
    settings = load("ops")

    async def main() -> None:
        async with Database(settings, role="ops") as database:
            for start in range(0, len(ordered), _CHUNK):
                async with database.transaction() as session:
                    done.update(await operations.resend(session, ordered[start : start + _CHUNK]))

    run(main())
    return done


def _parsed(delivery_id: str) -> DeliveryId:
    try:
        return DeliveryId.parse(delivery_id)
    except ValueError:
        raise click.UsageError(f"{delivery_id!r} is no id of a delivery") from None


def _in_transaction(load: Any, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
    settings = load("ops")

    async def main() -> T:
        async with Database(settings, role="ops") as database, database.transaction() as session:
            return await work(session)

    done: T = run(main())
    return done
