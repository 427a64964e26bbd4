"""Operators' commands: signing keys."""

import json
from collections.abc import Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from auth import queries
from auth.handlers import keys as handlers
from auth.keyring import policy_of
from auth.keys import KeyEncryption
from auth.models import SigningKey
from auth.settings import Settings
from common.commands import run
from common.database import Database, utc_now


@click.group("keys", help="The keys that sign access tokens.")
def keys() -> None: ...


@keys.command("list", help="Every published key and its status.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@click.pass_obj
def list_keys(load: Any, as_json: bool) -> None:
    rows = [_row(key) for key in run(_present(load("keys")))]
    if as_json:
        click.echo(json.dumps(rows))
        return
    table = Table("kid", "algorithm", "status", "since", "until")
    for row in rows:
        table.add_row(*row.values())
    Console().print(table)


@keys.command("rotate", help="Publish a new key now; it signs once verifiers know it. Can be repeated.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@click.pass_obj
def rotate_keys(load: Any, as_json: bool) -> None:
    row = _row(run(_rotate(load("keys"))))
    click.echo(json.dumps(row) if as_json else f"published {row['kid']}; it signs from {row['until']}")


async def _present(settings: Settings) -> Sequence[SigningKey]:
    database = Database.open(settings, role="keys")
    try:
        async with database.transaction() as session:
            return await queries.signing_keys(session)
    finally:
        await database.close()


async def _rotate(settings: Settings) -> SigningKey:
    database = Database.open(settings, role="keys")
    encryption = KeyEncryption(settings.key_encryption_bytes)
    try:
        async with database.transaction() as session:
            return await handlers.rotate(session, encryption, policy_of(settings), utc_now())
    finally:
        await database.close()


def _row(key: SigningKey) -> dict[str, str]:
    return {
        "kid": key.kid,
        "algorithm": key.alg,
        "status": key.status,
        "since": key.created_at.isoformat(timespec="seconds"),
        "until": key.changes_at.isoformat(timespec="seconds"),
    }
