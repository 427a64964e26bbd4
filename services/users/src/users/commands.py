"""Operators' commands of users."""

from typing import Any, get_args

import click

from common.cli.audit_commands import operator
from common.cli.roles import run
from common.db.database import Database
from common.errors import AppError
from users.handlers.administration import promote as promote_user
from users.models import Role
from users.settings import Settings


@click.command()
@click.argument("email")
@click.argument("role", type=click.Choice(get_args(Role)))
@click.pass_obj
def promote(load: Any, email: str, role: Role) -> None:
    """Gives the account with this EMAIL a ROLE. A new system gets its first admin this way.

    Exits with 0 if the account has the role afterwards, whether or not it had it before, and with 1 if it does not.
    """
    click.echo(run(_promote(load("promote"), email, role)))


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
