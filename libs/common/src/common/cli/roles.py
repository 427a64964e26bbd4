"""`python -m SERVICE COMMAND`: the roles of a service's one image, and its operators' commands.

Roles name their code by import string: a relay never loads FastAPI, and `--help` loads no role at all.
"""

import asyncio
import contextlib
import gc
import os
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError
from pydantic_settings import SettingsError

from common.observability import history
from common.observability.logs import configure_logging
from common.runtime.health import Health
from common.settings import DatabaseSettings, ServiceSettings

SCHEMA = "common.runtime.schema:Schema"
RELAY = "common.messaging.relay:relay"
AUDIT_COMMANDS = {"audit": "common.cli.audit_commands:audit"}
PRODUCER_COMMANDS = AUDIT_COMMANDS | {
    "outbox": "common.cli.outbox_commands:outbox",
    "events": "common.cli.event_commands:events",
}
CONSUMER_COMMANDS = AUDIT_COMMANDS | {
    "parked": "common.cli.consumer_commands:parked",
    "queues": "common.cli.consumer_commands:queues",
}

_DESCRIPTIONS = {
    "api": "Serve HTTP.",
    "relay": "Publish recorded events; several share them.",
    "consume": "Process the events in this service's queue.",
    "deliver": "Send deliveries that are due.",
}


def command_line(
    service: str,
    *,
    settings: str,
    roles: Mapping[str, str],
    commands: Mapping[str, str] | None = None,
    migrations: Path | None = None,
) -> click.Group:
    """The command line of one service.

    `settings` and the roles' values are import strings: `api` names `create_app(settings, health)`, `consume` its
    `EventHandlers`, every other role an `async def (settings, health, stop)`. `commands` are further click commands, by
    import string. A service with a `relay` or `consume` role also has the matching operators' commands. `migrations` is
    a folder: by default `migrations/`, next to the service's `src/` in a checkout and in an image alike.
    """
    load = _loader(service, settings)
    folder = migrations or Path(*import_module(service).__path__).parents[1] / "migrations"
    known = dict(commands or {})
    for role, operators in (("relay", PRODUCER_COMMANDS), ("consume", CONSUMER_COMMANDS)):
        known |= operators if role in roles else {}
    group = _Lazy(known, name=service, help=f"Roles and operators' commands of {service}.")
    for role, target in roles.items():
        group.add_command(_api(load, target, folder) if role == "api" else _worker(role, load, target, folder))
    group.add_command(_migrate(service, folder))
    group.context_settings = {"obj": load, "help_option_names": ["-h", "--help"]}
    return group


class _Lazy(click.Group):
    """A group that imports a command when it is run."""

    def __init__(self, targets: Mapping[str, str], **attributes: Any) -> None:
        super().__init__(**attributes)
        self._targets = targets

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *sorted(self._targets)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self._targets:
            command: click.Command = resolve(self._targets[cmd_name])
            return command
        return super().get_command(ctx, cmd_name)


def resolve(target: str) -> Any:
    """The object that an import string (`package.module:name`) names."""
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)


def _loader(service: str, target: str) -> Any:
    def load(role: str) -> ServiceSettings:
        settings: ServiceSettings = _read(resolve(target))
        configure_logging(service, role, settings.log_level)
        history.begin(settings.history, f"{service}-{role}")
        return settings

    return load


def _read(kind: type[DatabaseSettings]) -> Any:
    try:
        return kind.load()
    except (ValidationError, SettingsError) as error:
        problems = error.errors(include_input=False) if isinstance(error, ValidationError) else [{"msg": str(error)}]
        lines = [f"  {'.'.join(map(str, p.get('loc', ()))) or 'settings'}: {p['msg']}" for p in problems]
        raise click.ClickException("settings are missing or wrong:\n" + "\n".join(lines)) from None


_HOST = click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
_PORT = click.option(
    "--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="Port to listen on."
)


def _api(load: Any, target: str, folder: Path) -> click.Command:
    @click.command("api", help=_DESCRIPTIONS["api"])
    @_HOST
    @_PORT
    @click.option(
        "--internal-port",
        type=click.IntRange(1, 65535),
        envvar="WAYBILL_INTERNAL_PORT",  # set by the image
        help="Port of the endpoints for other services.",
    )
    def api(host: str, port: int, internal_port: int | None) -> None:
        gc.disable()  # until it serves: nearly all objects of a start stay, and collecting takes a fifth of its time
        settings = load("api")
        server = import_module("common.runtime.server")
        health = Health(schema=resolve(SCHEMA)(settings, folder, role="api").check)
        app = resolve(target)(settings, health, internal_port=internal_port)
        sockets = [_listen(server, host, number) for number in (port, internal_port) if number is not None]
        with recording(settings.service, "api"):
            server.serve_api(app, health, sockets, drain_seconds=settings.drain_seconds)

    return api


def _worker(role: str, load: Any, target: str, folder: Path) -> click.Command:
    @click.command(role, help=_DESCRIPTIONS.get(role))
    @_HOST
    @_PORT
    def worker(host: str, port: int) -> None:
        gc.disable()  # as above
        settings = load(role)
        server = import_module("common.runtime.server")
        work = resolve("common.messaging.consumer:consume" if role == "consume" else target)
        extra = (resolve(target),) if role == "consume" else ()
        schema = resolve(SCHEMA)(settings, folder, role=role)
        health = Health(schema=schema.check)

        async def begin(stop: asyncio.Event) -> None:
            await schema.wait(stop)
            await work(settings, health, stop, *extra)

        app = resolve("common.runtime.health_endpoints:worker_app")(health)
        sockets = [_listen(server, host, port)]
        with recording(settings.service, role):
            ended_well = server.serve_worker(app, health, sockets, begin)
        if not ended_well:
            sys.exit(1)

    return worker


def recording(service: str, role: str) -> contextlib.AbstractContextManager[None]:
    """Records spans if OpenTelemetry's own variables name a collector; else loads nothing of it."""
    given = os.environ.get
    collector = given("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or given("OTEL_EXPORTER_OTLP_ENDPOINT")
    if not collector or given("OTEL_TRACES_EXPORTER") == "none" or given("OTEL_SDK_DISABLED", "").lower() == "true":
        return contextlib.nullcontext()
    block: contextlib.AbstractContextManager[None] = resolve("common.observability.otel:recording")(service, role)
    return block


def _listen(server: Any, host: str, port: int) -> Any:
    try:
        return server.listen(host, port)
    except OSError as error:
        raise click.ClickException(str(error)) from None


def _migrate(service: str, folder: Path) -> click.Command:
    @click.command("migrate", help="Bring the database to the newest migration; safe to repeat.")
    def migrate() -> None:
        settings = _read(DatabaseSettings)
        configure_logging(service, "migrate", settings.log_level)
        upgrade = resolve("common.db.migrations:upgrade")
        with _connection_errors_as_sentences():
            done = upgrade(folder, settings.database_url.get_secret_value())
        click.echo("migrated" if done else "nothing to migrate")

    return migrate


def run(coroutine: Any) -> Any:
    """Runs an operator's command. An unavailable or refusing server ends it with a sentence and exit code 1."""
    try:
        with _connection_errors_as_sentences():
            return asyncio.run(coroutine)
    except resolve("common.cli.terminal:REFUSALS") as error:
        reason = str(getattr(error, "orig", None) or error).partition("\n")[0]
        raise click.ClickException(f"the server refuses: {reason}") from None


@contextlib.contextmanager
def _connection_errors_as_sentences() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:  # the reader of our output has ended, as `head` does; click handles it
        raise
    except (OSError, TimeoutError) as error:
        raise click.ClickException(f"cannot reach the server: {str(error) or 'no answer in time'}") from None
