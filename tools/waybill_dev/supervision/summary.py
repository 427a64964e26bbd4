"""Prints the stack's addresses, its processes and log lines for a terminal."""

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from waybill_dev.base.state import State
from waybill_dev.supervision import control

COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
NAME_WIDTH = 18
STATE_COLOURS = {"running": 32, "starting": 33, "backoff": 31, "stopped": 90}


def print_summary(state: State) -> None:
    status = control.call(state, "status")
    rows = [
        ("gateway", status["gateway"]),
        ("documentation", status["gateway"] and f"{status['gateway']}/docs"),
        ("administrator", status["admin"] and f"{status['admin']['email']} / {status['admin']['password']}"),
        ("mails", status["mail"]["maildir"]),
        ("RabbitMQ", status["broker"]["management_url"]),
        ("logs", state.logs),
    ]
    for name, value in rows:
        if value:
            print(f"{name:<14} {value}")


def print_table(status: Mapping[str, Any]) -> None:
    addresses = {
        process["name"]: process["url"] for service in status["services"].values() for process in service["processes"]
    }
    addresses |= {"gateway": status["gateway"], "mail": f"smtp://{status['mail']['smtp']}"}
    addresses |= {"postgres": _without_password(status["postgres"]["url"])}
    addresses |= {"rabbitmq": status["broker"]["management_url"]}
    print(f"{'name':<{NAME_WIDTH}} {'role':<8} {'pid':>8}  {'state':<9} {'restarts':>8}  url")
    for process in status["processes"]:
        name, state = process["name"], process["state"]
        coloured = _colour(f"{state:<9}", STATE_COLOURS[state])
        url = addresses.get(name) or ""
        print(
            f"{name:<{NAME_WIDTH}} {process['role']:<8} {process['pid'] or '-':>8}  {coloured} "
            f"{process['restarts'] or '-':>8}  {url}"
        )


def print_lines(lines: Iterable[tuple[str, str]]) -> None:
    for name, line in lines:
        colour = COLOURS[sum(name.encode()) % len(COLOURS)]
        print(f"{_colour(f'{name:<{NAME_WIDTH}}', colour)} | {line}", flush=True)


def _without_password(url: str | None) -> str:
    head, _, server = (url or "").rpartition("@")
    user = head.rpartition("://")[2].partition(":")[0]
    return f"postgresql://{user}@{server}" if server else ""


def _colour(text: str, code: int) -> str:
    return f"\033[{code}m{text}\033[0m" if sys.stdout.isatty() else text
