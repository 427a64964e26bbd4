"""`services.toml` as data. Standard library only, for compose's container."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from waybill_dev.errors import LocalError

FILE = Path(__file__).resolve().parents[3] / "services.toml"


@dataclass(frozen=True)
class Service:
    """One table of `services.toml`, whose head describes each field."""

    name: str
    summary: str
    roles: tuple[str, ...]
    reads: tuple[str, ...]
    internal_port: bool = False
    paths: tuple[str, ...] = ()
    exact_paths: tuple[str, ...] = ()
    calls: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    keys: tuple[str, ...] = ()

    @property
    def scopes(self) -> tuple[str, ...]:
        """All scopes of its own OAuth client."""
        return tuple(scope for scopes in self.calls.values() for scope in scopes)

    @property
    def clusters(self) -> tuple[str, ...]:
        """The gateway's names for its API."""
        return (self.name, f"{self.name}-internal") if self.internal_port else (self.name,)


def declared(text: str) -> dict[str, Service]:
    """The services by name, in the file's order. Raises LocalError for what is not a declaration."""
    services: dict[str, Service] = {}
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise LocalError(f"services.toml: {error}") from None
    for name, table in tables.items():
        values: dict[str, Any] = {key: _frozen(value) for key, value in table.items()}
        try:
            services[name] = Service(name, **values)
        except TypeError as error:
            raise LocalError(f"services.toml: {name}: {str(error).removeprefix('Service.__init__() ')}") from None
    for service in services.values():
        for other in (*service.reads, *service.calls):
            if other not in services:
                raise LocalError(f"services.toml: {service.name} names {other}, which is not declared")
        if "auth" not in service.reads:
            raise LocalError(f"services.toml: {service.name} must read auth's events: they revoke tokens")
    return services


def _frozen(value: object) -> object:
    if isinstance(value, dict):
        return {key: tuple(values) for key, values in value.items()}
    return tuple(value) if isinstance(value, list) else value


SERVICES: Mapping[str, Service] = declared(FILE.read_text())
