"""Operators' commands of webhooks."""

from typing import Any, Final
from uuid import UUID

import click

from common.cli.roles import run
from common.cli.terminal import JSON, show
from common.db.database import Database
from notifier.settings import Settings
from notifier.webhooks import queries
from notifier.webhooks.models import Owner

_COLUMNS: Final = ("id", "owner", "host", "enabled", "disabled_reason", "failing_since", "created_at")


@click.group()
def webhooks() -> None:
    """Webhooks of persons and clients."""


@webhooks.command("list")
@click.option("--user", type=click.UUID, help="Only those of this person.")
@click.option("--client", help="Only those of this client.")
@click.option("--disabled", is_flag=True, help="Only disabled ones.")
@JSON
@click.pass_obj
def list_webhooks(load: Any, *, user: UUID | None, client: str | None, disabled: bool, as_json: bool) -> None:
    """Lists webhooks, newest first, without the rest of their URLs, which may be secret."""
    owner = Owner(user, client) if user is not None or client is not None else None
    show(run(_list(load("webhooks"), owner, disabled=disabled)), _COLUMNS, as_json=as_json)


async def _list(settings: Settings, owner: Owner | None, *, disabled: bool) -> list[dict[str, Any]]:
    async with Database(settings, role="webhooks") as database, database.transaction() as session:
        return [
            {
                "id": webhook.id,
                "owner": webhook.client_id or webhook.user_id,
                "host": webhook.host,
                "enabled": webhook.enabled,
                "disabled_reason": webhook.disabled_reason,
                "failing_since": webhook.failing_since,
                "created_at": webhook.created_at,
            }
            for webhook in await queries.all_webhooks(session, owner, disabled=disabled)
        ]
