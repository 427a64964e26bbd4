"""The services' programs: which roles there are, on which ports, with which settings and secrets."""

import dataclasses
import functools
import json
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from waybill_dev.base import credentials
from waybill_dev.base.declaration import SERVICES
from waybill_dev.base.probes import answers_http
from waybill_dev.base.program import Program, base_environment
from waybill_dev.base.state import LOOPBACK, State
from waybill_dev.errors import LocalError
from waybill_dev.servers import rabbitmq_definitions

ROLES: Mapping[str, tuple[str, ...]] = {name: service.roles for name, service in SERVICES.items()}
WITH_INTERNAL_PORT = tuple(name for name, service in SERVICES.items() if service.internal_port)
# Set by this module or meant for `./dev` itself: never passed on from the caller's environment.
_OWN = ("WAYBILL_POSTGRES_URL", "WAYBILL_AMQP_URL", "WAYBILL_STATE_DIR", "WAYBILL_TEST_", "WAYBILL_SECRETS_DIR")


@dataclass(frozen=True)
class Addresses:
    """Where the rest of the stack is, for the services' settings. URLs have no trailing slash."""

    gateway_url: str
    auth_internal_url: str
    users_internal_url: str
    postgres_url: str
    amqp_url: str
    own_broker: bool
    smtp_port: int

    def database_url(self, state: State, service: str) -> str:
        server = self.postgres_url.rpartition("@")[2].partition("/")[0]
        return f"postgresql://{service}:{database_password(state, service)}@{server}/{service}"

    def service_amqp_url(self, state: State, service: str) -> str:
        """The service's own user at our broker; for an external broker, the given address."""
        if not self.own_broker:
            return self.amqp_url
        server = self.amqp_url.rpartition("@")[2]
        return f"amqp://{quote(service)}:{amqp_password(state, service)}@{server}"


def database_password(state: State, service: str) -> str:
    return credentials.secret(state, f"postgres/{service}", "password")


def amqp_password(state: State, service: str) -> str:
    return credentials.secret(state, f"rabbitmq/{service}", "password")


def write_secrets(state: State, addresses: Addresses) -> None:
    """The files that the services read (WAYBILL_SECRETS_DIR), one folder per service."""
    for service in SERVICES:
        credentials.put(state, service, "waybill_database_url", addresses.database_url(state, service))
        credentials.put(state, service, "waybill_amqp_url", addresses.service_amqp_url(state, service))
        credentials.secret(state, service, "waybill_client_secret")
        for name in SERVICES[service].keys:
            credentials.key(state, service, name)
    clients = [
        {
            "client_id": service,
            "secret_sha256": credentials.sha256(credentials.secret(state, service, "waybill_client_secret")),
            "scopes": list(declared.scopes),
        }
        for service, declared in SERVICES.items()
    ]
    credentials.put(state, "auth", "waybill_service_clients", json.dumps(clients))


def environment(state: State, addresses: Addresses, service: str) -> dict[str, str]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("WAYBILL_", "OTEL_")) and not name.startswith(_OWN)
    }
    return {
        **base_environment(),
        **inherited,
        "PYTHONUNBUFFERED": "1",
        "WAYBILL_SECRETS_DIR": str(state.secrets / service),
        "WAYBILL_PUBLIC_URL": addresses.gateway_url,
        "WAYBILL_AUTH_URL": addresses.auth_internal_url,
        "WAYBILL_USERS_URL": addresses.users_internal_url,
        "WAYBILL_RESOURCE_SERVERS": json.dumps(list(SERVICES)),
        "WAYBILL_SMTP_HOST": LOOPBACK,
        "WAYBILL_SMTP_PORT": str(addresses.smtp_port),
        "WAYBILL_MAIL_FROM": "Waybill <no-reply@waybill.example>",
    }


def source(state: State, service: str) -> Path:
    """The checkout that `service` is run from: this one, or the one that `from/SERVICE` in the state folder links to.

    So one service can be of another version than all others, as during a rollout.
    """
    other = state.folder / "from" / service
    return other.resolve() if other.is_dir() else state.checkout


def command(state: State, service: str, *words: str) -> tuple[str, ...]:
    return (str(source(state, service) / ".venv" / "bin" / "python"), "-m", service, *words)


def folder(state: State, service: str) -> Path:
    return source(state, service) / "services" / service


def has_role(state: State, service: str, role: str) -> bool:
    """Whether the version that the service is run from has the role: an older one may not have it yet."""
    if source(state, service) == state.checkout:
        return role in ROLES[service]
    return role in offered_commands(command(state, service, "--help"), folder(state, service))


@functools.cache
def offered_commands(words: tuple[str, ...], folder: Path) -> frozenset[str]:
    """The commands that a program's help lists. Raises LocalError when the program fails."""
    asked = subprocess.run(
        words, cwd=folder, env=base_environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if asked.returncode != 0:
        raise LocalError(f"{' '.join(words)} failed: {asked.stderr.strip()[-500:]}")
    listed = asked.stdout.partition("Commands:\n")[2]
    return frozenset(re.findall(r"^  (\S+)", listed, re.MULTILINE))


@dataclass(frozen=True)
class ServiceProgram:
    """One process of one role, with the ports that it listens on (`port` serves its health, too)."""

    service: str
    role: str
    index: int
    port: int
    internal_port: int | None
    words: tuple[str, ...]
    program: Program


def service_program(state: State, addresses: Addresses, service: str, role: str, index: int) -> ServiceProgram:
    """`index` counts the processes of a role from 1; ports are reserved now."""
    name = f"{service}-{role}" if index == 1 else f"{service}-{role}-{index}"
    port = state.port(name)
    words = [role, "--host", LOOPBACK, "--port", str(port)]
    internal_port = None
    if role == "api" and service in WITH_INTERNAL_PORT:
        internal_port = state.port(f"{name}-internal")
        words += ["--internal-port", str(internal_port)]

    async def ready() -> bool:
        return await answers_http(port, "/health/ready")

    program = Program(
        name=name,
        command=command(state, service, *words),
        log=state.logs / f"{name}.log",
        ready=ready,
        environment=environment(state, addresses, service),
        folder=folder(state, service),
    )
    return ServiceProgram(service, role, index, port, internal_port, tuple(words), program)


def renewed(state: State, program: ServiceProgram) -> Program:
    """The same process of the version that the service is run from now."""
    return dataclasses.replace(
        program.program,
        command=command(state, program.service, *program.words),
        folder=folder(state, program.service),
    )


def broker_requirements() -> str:
    """What a broker that isn't ours must offer, for a person to compare."""
    wanted = rabbitmq_definitions.definitions(services=dict.fromkeys(ROLES, ""), administrator="")
    lines = [f"  policy {p['name']}: {p['pattern']} → {p['definition']}" for p in wanted["policies"]]
    return "\n".join(["queues and exchanges may be declared, bound, read and written by the URL's user;", *lines])
