"""compose.yml as data, as far as these tests need it: merges resolved, and variables at their defaults."""

import re
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).parents[2]
DEPLOY = CHECKOUT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]

_VARIABLE = re.compile(r"\$\{\w+:(?:-([^${}]*)|\+[^${}]*)\}")


def environment(service: str) -> dict[str, str]:
    return {name: _at_default(value) for name, value in SERVICES[service]["environment"].items()}


def _at_default(value: str) -> str:
    """`${NAME:-default}` and `${NAME:+value}`, innermost first."""
    while (resolved := _VARIABLE.sub(lambda match: match[1] or "", value)) != value:
        value = resolved
    return value
