"""Operators' commands of users."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncSession

from common.cli.audit_commands import operator, record_command
from common.cli.roles import run
from common.cli.terminal import OLD_KEY
from common.db.database import Database
from common.errors import AppError
from common.security.sealing import KeyEncryption, WrongKeyEncryptionKey
from common.settings import key_bytes
from users import queries
from users.credentials import second_factor
from users.handlers import authenticators as second_factors
from users.handlers.administration import promote as promote_user
from users.models import Role
from users.settings import Settings

T = TypeVar("T")


@click.command()
@click.argument("email")
@click.argument("role", type=click.Choice(get_args(Role)))
@click.pass_obj
def promote(load: Any, email: str, role: Role) -> None:
    """Gives the account with this EMAIL a ROLE. A new system gets its first admin this way.

    Exits with 0 if the account has the role afterwards, whether or not it had it before, and with 1 if it does not.
    """
    click.echo(run(_promote(load("promote"), email, role)))


@click.group()
def authenticators() -> None:
    """The second factors of accounts."""


@authenticators.command("remove")
@click.argument("email")
@click.pass_obj
def remove_authenticator(load: Any, email: str) -> None:
    """Removes the second factor of the account with this EMAIL, whose owner has lost it. Make sure that it is them.

    They get a mail about it.
    """
    settings = load("ops")

    async def remove(session: AsyncSession) -> str:
        user = await queries.user_by_email(session, email.lower())
        await second_factors.remove_totp(session, user.id)
        await record_command(session, settings, "authenticator.removed", user.id)
        return f"{user.email} signs in without a code now"

    click.echo(_in_transaction(settings, remove))


@authenticators.command("rewrap")
@OLD_KEY
@click.pass_obj
def rewrap_secrets(load: Any, old_key: Path) -> None:
    """Encrypts the secrets of authenticator apps again, with the key encryption key that is configured now."""
    settings = load("ops")
    try:
        old = KeyEncryption(key_bytes(SecretStr(old_key.read_text())))
        new = KeyEncryption(settings.key_encryption_bytes)

        async def rewrap(session: AsyncSession) -> int:
            await record_command(session, settings, "authenticators.rewrapped", new.id, detail=f"from {old.id}")
            return await second_factor.rewrap(session, old, new)

        count = _in_transaction(settings, rewrap)
    except (ValueError, WrongKeyEncryptionKey) as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{count} rewrapped")


def _in_transaction(settings: Settings, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
    async def worked() -> T:
        async with Database(settings, role="ops") as database, database.transaction() as session:
            return await work(session)

    try:
        done: T = run(worked())
    except AppError as refusal:
        raise click.ClickException(refusal.detail) from None
    return done


async def _promote(settings: Settings, email: str, role: Role) -> str:
    try:
        async with Database(settings, role="promote") as database, database.transaction() as session:
            user, before = await promote_user(session, email.lower(), role, actor=operator())
    except AppError as refusal:
        raise click.ClickException(f"{email}: {refusal.detail}") from None
    note = "" if user.status == "active" else " (the account is deactivated)"
    if before == role:
        return f"{user.email} is {role} already{note}"
    return f"{user.email} is {role} now, was {before}{note}"
