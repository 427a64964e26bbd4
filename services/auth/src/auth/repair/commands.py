"""The operators' command `subjects`: what auth knows of people."""

from typing import Any, Final

import click

from auth.keys.keyring import Keyring
from auth.oauth.own_tokens import OwnTokenSource
from auth.repair.subjects import Finding
from auth.repair.subjects import repair as repair_subjects
from auth.settings import Settings
from common.cli.audit_commands import operator
from common.cli.roles import run
from common.cli.terminal import JSON, show
from common.db.database import Database
from common.errors import Unavailable
from common.security.service_client import ServiceClient, http_client

_COLUMNS: Final = ("user_id", "known_version", "version", "action")


@click.group()
def subjects() -> None:
    """What auth knows of people from users."""


@subjects.command()
@click.option(
    "--end-missing", is_flag=True, help="Sign out people whom users does not have. Without it, only list them."
)
@click.option("--dry-run", is_flag=True, help="Only list what would be done.")
@JSON
@click.pass_obj
def repair(load: Any, end_missing: bool, dry_run: bool, as_json: bool) -> None:
    """Take users' word on everybody of whom auth knows what users does not have, as after a restore of users."""
    try:
        findings = run(_repair(load("ops"), end_missing=end_missing, dry_run=dry_run))
    except Unavailable as error:
        raise click.ClickException(f"users cannot be asked: {error.detail}") from None
    show([{name: getattr(finding, name) for name in _COLUMNS} for finding in findings], _COLUMNS, as_json=as_json)


async def _repair(settings: Settings, *, end_missing: bool, dry_run: bool) -> list[Finding]:
    async with Database(settings, role="ops") as database, http_client() as http:
        keyring = Keyring(database, settings)
        await keyring.reload()
        users = ServiceClient(http, settings.users_url, OwnTokenSource(keyring, settings))
        found = repair_subjects(database, users, actor=operator(), end_missing=end_missing, dry_run=dry_run)
        return [finding async for finding in found]
