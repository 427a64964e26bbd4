"""`./dev`: see `./dev --help`."""

import importlib
import signal
import sys

import click

from waybill_dev.errors import LocalError

# Each is imported when it is used: `./dev status` does not wait for the imports of `./dev test`.
COMMANDS = {
    "demo": "waybill_dev.commands.demo:demo",
    "up": "waybill_dev.commands.lifecycle:up",
    "down": "waybill_dev.commands.lifecycle:down",
    "reset": "waybill_dev.commands.lifecycle:reset",
    "status": "waybill_dev.commands.operate:status",
    "logs": "waybill_dev.commands.operate:logs",
    "start": "waybill_dev.commands.operate:start",
    "stop": "waybill_dev.commands.operate:stop",
    "restart": "waybill_dev.commands.operate:restart",
    "scale": "waybill_dev.commands.operate:scale",
    "test": "waybill_dev.commands.test:test",
    "check": "waybill_dev.commands.check:check",
    "bench": "waybill_dev.commands.bench:bench",
    "costs": "waybill_dev.commands.costs:costs",
    "new": "waybill_dev.commands.new:new",
    "lock": "waybill_dev.commands.generate:lock",
    "contracts": "waybill_dev.commands.generate:contracts",
    "migration": "waybill_dev.commands.migration:migration",
    "graph": "waybill_dev.commands.graph:graph",
    "ops": "waybill_dev.commands.ops:ops",
    "subscriber": "waybill_dev.commands.subscriber:subscriber",
    "token": "waybill_dev.commands.token:token",
    "trace": "waybill_dev.commands.trace:trace",
    "chaos": "waybill_dev.commands.chaos:chaos",
    "history": "waybill_dev.commands.history:history",
    "model": "waybill_dev.commands.model:model",
    "dashboards": "waybill_dev.commands.dashboards:dashboards",
    "mails": "waybill_dev.commands.mails:mails",
}


class Commands(click.Group):
    def list_commands(self, _context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
def dev() -> None:
    """Runs, tests and checks Waybill on this machine. Its state is in .dev/ (or WAYBILL_STATE_DIR)."""


def main() -> None:
    # An exception, so that a terminated command still stops what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        dev(prog_name="./dev")
    except LocalError as error:
        print(f"./dev: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
