"""The operators' command `keys`: list, rotate and rewrap signing keys."""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncSession

from auth import queries
from auth.keys import handlers
from auth.keys.keyring import policy_of
from auth.models import SigningKey
from auth.settings import Settings
from common.cli.audit_commands import record_command
from common.cli.roles import run
from common.cli.terminal import JSON, OLD_KEY, show
from common.db.database import Database, utc_now
from common.security.sealing import KeyEncryption, WrongKeyEncryptionKey
from common.settings import key_bytes

T = TypeVar("T")

_COLUMNS: Final = ("kid", "algorithm", "status", "created_at", "changes_at", "kek_id")


@click.group()
def keys() -> None:
    """The keys that sign access tokens."""


@keys.command("list")
@JSON
@click.pass_obj
def list_keys(load: Any, as_json: bool) -> None:
    """List the published keys, their status, and when it changes."""
    show(_rows(run(_in_transaction(load("ops"), queries.signing_keys))), _COLUMNS, as_json=as_json)


@keys.command("rotate")
@click.option("--emergency", is_flag=True, help="Delete all keys now. Every access token becomes invalid.")
@JSON
@click.pass_obj
def rotate_keys(load: Any, emergency: bool, as_json: bool) -> None:
    """Publish a new key now. It signs once verifiers have had time to fetch it. Can be repeated."""
    settings = load("ops")
    add_key = handlers.replace_all_keys if emergency else handlers.add_pending_key
    encryption, policy = KeyEncryption(settings.key_encryption_bytes), policy_of(settings)

    async def rotate(session: AsyncSession) -> SigningKey:
        key = await add_key(session, encryption, policy, utc_now())
        await record_command(session, settings, "keys.rotated", key.kid, detail="emergency" if emergency else None)
        return key

    key = run(_in_transaction(settings, rotate))
    show(_rows([key]), _COLUMNS, as_json=as_json)


@keys.command("rewrap")
@OLD_KEY
@click.pass_obj
def rewrap_keys(load: Any, old_key: Path) -> None:
    """Encrypt the private keys again, with the key encryption key that is configured now."""
    settings = load("ops")

    async def rewrap(session: AsyncSession) -> int:
        await record_command(session, settings, "keys.rewrapped", new.id, detail=f"from {old.id}")
        return await handlers.rewrap_keys(session, old, new)

    try:
        old = KeyEncryption(key_bytes(SecretStr(old_key.read_text())))
        new = KeyEncryption(settings.key_encryption_bytes)
        count = run(_in_transaction(settings, rewrap))
    except (ValueError, WrongKeyEncryptionKey) as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{count} rewrapped")


async def _in_transaction(settings: Settings, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
    async with Database(settings, role="ops") as database, database.transaction() as session:
        return await work(session)


def _rows(signing_keys: Sequence[SigningKey]) -> list[dict[str, Any]]:
    return [
        {
            "kid": key.kid,
            "algorithm": key.alg,
            "status": key.status,
            "created_at": key.created_at,
            "changes_at": key.changes_at,
            "kek_id": key.kek_id,
        }
        for key in signing_keys
    ]
