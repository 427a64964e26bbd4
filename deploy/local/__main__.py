"""`./dev`: see `./dev --help`."""

import importlib
import signal
import sys

import click

from local.failure import LocalError

# Imported when used: `./dev status` need not wait for what `./dev test` needs.
COMMANDS = {
    "demo": "local.commands.demo:demo",
    "up": "local.commands.lifecycle:up",
    "down": "local.commands.lifecycle:down",
    "reset": "local.commands.lifecycle:reset",
    "status": "local.commands.operate:status",
    "logs": "local.commands.operate:logs",
    "start": "local.commands.operate:start",
    "stop": "local.commands.operate:stop",
    "restart": "local.commands.operate:restart",
    "scale": "local.commands.operate:scale",
    "test": "local.commands.test:test",
    "check": "local.commands.check:check",
    "bench": "local.commands.bench:bench",
    "lock": "local.commands.generate:lock",
    "contracts": "local.commands.generate:contracts",
    "ops": "local.commands.ops:ops",
    "subscriber": "local.commands.subscriber:subscriber",
    "trace": "local.commands.trace:trace",
    "chaos": "local.commands.chaos:chaos",
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
    """Runs, tests and checks Waybill on this machine. State is kept in .dev/ (or WAYBILL_STATE_DIR)."""


def main() -> None:
    # So that a command that is told to end still stops what it started.
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
