"""The stack's own RabbitMQ node, with its own ports, cookie, data and Erlang name server, all on loopback."""

import json
import os
from collections.abc import Iterator, Mapping
from urllib.parse import quote

from waybill_dev.base import credentials
from waybill_dev.base.options import stream_bytes
from waybill_dev.base.probes import answers_http, listens
from waybill_dev.base.program import Program, base_environment
from waybill_dev.base.state import LOOPBACK, State, write_private
from waybill_dev.servers import rabbitmq_container
from waybill_dev.servers.rabbitmq_definitions import ADMINISTRATOR, definitions
from waybill_dev.servers.rabbitmq_finder import Container, Programs

CONFIGURATION = """\
listeners.tcp.1 = {host}:{port}
management.tcp.ip = {host}
management.tcp.port = {management_port}
prometheus.tcp.ip = {host}
prometheus.tcp.port = {metrics_port}
load_definitions = {definitions}
log.console = true
log.console.level = info
log.file = false
# A node for one developer: quorum logs of 512 MiB each would fill a small disk.
raft.wal_max_size_bytes = 67108864
disk_free_limit.absolute = 100MB
vm_memory_high_watermark.relative = 0.4
"""
PLUGINS = "[rabbitmq_management,rabbitmq_prometheus,rabbitmq_consistent_hash_exchange].\n"


def amqp_url(user: str, password: str, port: int) -> str:
    return f"amqp://{quote(user)}:{quote(password)}@{LOOPBACK}:{port}/"


class RabbitMQ:
    def __init__(self, state: State, broker: Programs | Container, services: Mapping[str, str]) -> None:
        """`services` maps each service to its password."""
        self.state = state
        self.broker = broker
        self.folder = state.folder / "rabbitmq"
        self.services = services
        self.port = state.port("amqp")
        self.management_port = state.port("management")
        self.metrics_port = state.port("rabbitmq-metrics")
        self.distribution_port = state.port("erlang")
        self.epmd_port = state.port("epmd")
        self.password = credentials.secret(state, "rabbitmq", "administrator_password")

    @property
    def amqp_url(self) -> str:
        return amqp_url(ADMINISTRATOR, self.password, self.port)

    @property
    def management_url(self) -> str:
        return f"http://{LOOPBACK}:{self.management_port}"

    @property
    def metrics_url(self) -> str:
        return f"http://{LOOPBACK}:{self.metrics_port}"

    def programs(self) -> Iterator[Program]:
        """The Erlang name server, which a container brings itself, and then the node."""
        self._configure()
        if isinstance(self.broker, Programs):
            environment = {**base_environment(), **self.broker.environment, **self._environment()}
            yield self._epmd(self.broker, environment)
            # All data is on disk within a moment. With the management plugin the node then waits 5 s in a deadlock: the
            # plugin's event handler calls the application controller, which waits for that handler to end (3.10).
            yield self._node((self.broker.server,), environment, stop_seconds=3)
        else:
            ports = (self.port, self.management_port, self.metrics_port)
            command = rabbitmq_container.command(self.broker.engine, self.folder, self._environment(), ports)
            yield self._node(command, dict(os.environ), stop_seconds=30)

    def _epmd(self, programs: Programs, environment: Mapping[str, str]) -> Program:
        async def ready() -> bool:
            return await listens(self.epmd_port)

        return Program(
            name="epmd",
            command=(programs.epmd, "-port", str(self.epmd_port), "-address", LOOPBACK),
            log=self.state.logs / "epmd.log",
            ready=ready,
            environment=environment,
            folder=self.folder,
            stop_seconds=3,
        )

    def _node(self, command: tuple[str, ...], environment: Mapping[str, str], *, stop_seconds: float) -> Program:
        async def ready() -> bool:
            return await answers_http(
                self.management_port,
                f"/api/health/checks/port-listener/{self.port}",
                auth=(ADMINISTRATOR, self.password),
            )

        return Program(
            name="rabbitmq",
            command=command,
            log=self.state.logs / "rabbitmq.log",
            ready=ready,
            environment=environment,
            folder=self.folder,
            stop_seconds=stop_seconds,
        )

    def _configure(self) -> None:
        self.folder.mkdir(exist_ok=True)
        released = [service for service in self.services if (self.state.folder / "from" / service).is_dir()]
        content = definitions(
            services=self.services,
            administrator=self.password,
            released=released,
            stream_bytes=stream_bytes(os.environ),
        )
        write_private(self.folder / "definitions.json", json.dumps(content))
        write_private(
            self.folder / "rabbitmq.conf",
            CONFIGURATION.format(
                # A container's addresses are its own; the engine publishes the ports on loopback.
                host=LOOPBACK if isinstance(self.broker, Programs) else "0.0.0.0",
                port=self.port,
                management_port=self.management_port,
                metrics_port=self.metrics_port,
                definitions=self.folder / "definitions.json",
            ),
        )
        (self.folder / "enabled_plugins").write_text(PLUGINS)
        (self.folder / "environment").touch()
        write_private(self.folder / ".erlang.cookie", credentials.secret(self.state, "rabbitmq", "erlang_cookie"))
        (self.folder / ".erlang.cookie").chmod(0o400)

    def _environment(self) -> dict[str, str]:
        folder = self.folder
        arguments = "-kernel inet_dist_use_interface {127,0,0,1}"
        if isinstance(self.broker, Programs):
            arguments += " -start_epmd false"
        return {
            "HOME": str(folder),
            "RABBITMQ_NODENAME": "waybill@localhost",
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "environment"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "generated"),
            "RABBITMQ_SCHEMA_DIR": str(folder / "schema"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_DIST_PORT": str(self.distribution_port),
            "ERL_EPMD_PORT": str(self.epmd_port),
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "ERL_CRASH_DUMP_BYTES": "0",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": arguments,
            # The start script then replaces itself by the node, so that there is one pid to signal.
            "RUNNING_UNDER_SYSTEMD": "true",
        }
