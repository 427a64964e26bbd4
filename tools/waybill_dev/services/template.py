"""The template of a service, `tools/template`: a service called `samples`, rendered by giving it another name."""

import importlib.util
import keyword
import re
from collections.abc import Mapping
from pathlib import Path

from waybill_dev.base.declaration import Service
from waybill_dev.errors import LocalError

TEMPLATE_NAME = "samples"
# Names of servers, containers and networks, and of paths that the gateway answers.
RESERVED = frozenset(
    (
        *("common", "mail", "mailpit", "gateway", "postgres", "rabbitmq", "databases", "secrets", "edge", "outbound"),
        *("prometheus", "jaeger", "grafana", "admin", "docs", "redoc", "openapi", "health", "metrics", "internal"),
    )
)


def check_name(name: str, services: Mapping[str, Service]) -> None:
    """Raises LocalError with the reason why a service can't have this name."""
    if name in services:
        raise LocalError(f"there is a service {name} already")
    if not re.fullmatch(r"[a-z]{2,20}", name):
        raise LocalError(f"{name!r} can't name a service: a name is 2 to 20 letters a-z")
    # Its package must not hide a module of Python or of a dependency.
    if keyword.iskeyword(name) or name in RESERVED or importlib.util.find_spec(name) is not None:
        raise LocalError(f"{name!r} can't name a service: it has a meaning already")
    for service in services.values():
        if f"/{name}" in (*service.paths, *service.exact_paths):
            raise LocalError(f"{name!r} can't name a service: /{name} is a path of {service.name}")


def files(folder: Path, name: str) -> dict[str, str]:
    """Every file of the template by its path below the checkout, under the new name."""
    root = folder / "files"
    return {
        renamed(str(file.relative_to(root)), name): renamed(file.read_text(), name)
        for file in sorted(root.rglob("*"))
        if file.is_file() and "__pycache__" not in file.parts
    }


def blocks(folder: Path, name: str) -> dict[str, str]:
    """What goes into files that list services, by the block's file name."""
    return {file.name: renamed(file.read_text(), name) for file in sorted((folder / "blocks").iterdir())}


def renamed(text: str, name: str) -> str:
    return text.replace(TEMPLATE_NAME, name).replace(TEMPLATE_NAME.title(), name.title())
