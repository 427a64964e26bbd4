"""Operators' commands: signing keys."""

import base64
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from sqlalchemy.ext.asyncio import AsyncSession

from auth import queries
from auth.keys import handlers
from auth.keys.keypairs import KeyEncryption, WrongKeyEncryptionKey
from auth.keys.keyring import policy_of
from auth.models import SigningKey
from auth.settings import Settings
from common.cli.roles import run
from common.cli.terminal import JSON, show
from common.db.database import Database, utc_now

T = TypeVar("T")

_COLUMNS: Final = ("kid", "algorithm", "status", "created_at", "changes_at", "kek_id")


@click.group()
def keys() -> None:
    """The keys that sign access tokens."""


@keys.command("list")
@JSON
@click.pass_obj
def list_keys(load: Any, as_json: bool) -> None:
    """Every published key, its status, and when that changes."""
    show(_rows(run(_work(load("ops"), queries.signing_keys))), _COLUMNS, as_json=as_json)


@keys.command("rotate")
@click.option("--emergency", is_flag=True, help="Drop all keys now; every access token ends with them.")
@JSON
@click.pass_obj
def rotate_keys(load: Any, emergency: bool, as_json: bool) -> None:
    """Publish a new key now. It signs once verifiers had time to learn of it; can be repeated."""
    settings = load("ops")
    step = handlers.replace_all if emergency else handlers.rotate
    encryption, policy = KeyEncryption(settings.key_encryption_bytes), policy_of(settings)
    key = run(_work(settings, lambda session: step(session, encryption, policy, utc_now())))
    show(_rows([key]), _COLUMNS, as_json=as_json)


@keys.command("rewrap")
@click.option(
    "--old-key",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the key-encryption key used so far, in base64.",
)
@click.pass_obj
def rewrap_keys(load: Any, old_key: Path) -> None:
    """Encrypt the private keys anew, under the key-encryption key that is mounted now."""
    settings = load("ops")
    try:
        old = KeyEncryption(base64.b64decode(old_key.read_text()))
        new = KeyEncryption(settings.key_encryption_bytes)
        count = run(_work(settings, lambda session: handlers.rewrap(session, old, new)))
    except (ValueError, WrongKeyEncryptionKey) as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{count} rewrapped")


async def _work(settings: Settings, step: Callable[[AsyncSession], Awaitable[T]]) -> T:
    database = Database.open(settings, role="ops")
    try:
        async with database.transaction() as session:
            return await step(session)
    finally:
        await database.close()


def _rows(present: Sequence[SigningKey]) -> list[dict[str, Any]]:
    return [
        {
            "kid": key.kid,
            "algorithm": key.alg,
            "status": key.status,
            "created_at": key.created_at,
            "changes_at": key.changes_at,
            "kek_id": key.kek_id,
        }
        for key in present
    ]
