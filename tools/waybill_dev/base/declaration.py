"""`services.toml` as data. Standard library only, for compose's container."""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from waybill_dev.errors import LocalError

FILE = Path(__file__).resolve().parents[3] / "services.toml"
# Every API reads these: `common.security.revocation`.
REVOCATIONS = ("auth.session.revoked.v1", "auth.subject.revoked.v1", "auth.keys.changed.v1")


@dataclass(frozen=True)
class Service:
    """One table of `services.toml`, whose head describes each field."""

    name: str
    summary: str
    roles: tuple[str, ...]
    reads: tuple[str, ...] = ()
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
    def consumed(self) -> dict[str, list[str]]:
        """The routing patterns of `reads` by producer."""
        return _by_producer(self.reads)

    @property
    def readable(self) -> dict[str, list[str]]:
        """The routing patterns of all that it reads from others, by producer."""
        patterns = _by_producer(dict.fromkeys((*REVOCATIONS, *self.reads)))
        patterns.pop(self.name, None)
        return patterns

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
        for other in (*service.consumed, *service.calls):
            if other not in services:
                raise LocalError(f"services.toml: {service.name} names {other}, which is not declared")
    return services


def _by_producer(patterns: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for pattern in patterns:
        found.setdefault(pattern.partition(".")[0], []).append(pattern)
    return found


def _frozen(value: object) -> object:
    if isinstance(value, dict):
        return {key: tuple(values) for key, values in value.items()}
    return tuple(value) if isinstance(value, list) else value


SERVICES: Mapping[str, Service] = declared(FILE.read_text())
