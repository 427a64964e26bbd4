"""All processes of one stack: starts them in order, finds them by name, and stops them."""

import asyncio
from collections.abc import Iterator

from waybill_dev.base.options import Options
from waybill_dev.base.program import Program
from waybill_dev.base.state import State
from waybill_dev.errors import LocalError
from waybill_dev.progress import say
from waybill_dev.servers import postgres
from waybill_dev.servers.databases import ensure_databases
from waybill_dev.servers.gateway import CLUSTERS, Gateway
from waybill_dev.servers.mail_server import MailServer
from waybill_dev.servers.rabbitmq import RabbitMQ
from waybill_dev.servers.rabbitmq_finder import find_broker
from waybill_dev.services import programs
from waybill_dev.services.administrator import ensure_admin
from waybill_dev.services.programs import ROLES, Addresses
from waybill_dev.supervision import leftovers
from waybill_dev.supervision.fleet import Fleet, Member
from waybill_dev.supervision.process import Process


class Stack:
    """`prepare`, then `boot` once, and `stop` at the end."""

    def __init__(self, state: State, options: Options) -> None:
        self.state = state
        self.options = options
        self.servers: dict[str, Process] = {}
        self.postgres_url = options.postgres_url or ""
        self.rabbitmq: RabbitMQ | None = None
        self.mail: MailServer | None = None
        self.gateway: Gateway | None = None
        self.fleet: Fleet | None = None
        self.admin: dict[str, str] | None = None

    def prepare(self) -> None:
        """Reserves ports, writes configuration, and creates or downloads what is missing. Starts nothing."""
        state, options = self.state, self.options
        if options.has("postgres") and options.postgres_url is None:
            port = state.port("postgres")
            self.postgres_url = postgres.url(state, port)
            # A stack without services is for tests. Their databases live for a second, and need not survive a crash.
            self._add(postgres.program(state, port, durable=options.has("services")))
        if options.has("rabbitmq") and options.amqp_url is None:
            passwords = {service: programs.amqp_password(state, service) for service in ROLES}
            self.rabbitmq = RabbitMQ(state, find_broker(), passwords)
            for program in self.rabbitmq.programs():
                self._add(program)
        elif options.amqp_url is not None:
            say(f"using the broker of WAYBILL_AMQP_URL as it is. It must offer:\n{programs.broker_requirements()}")
        if options.has("mail"):
            self.mail = MailServer(state)
            self._add(self.mail.program())
        if options.has("gateway"):
            self.gateway = Gateway(state)
            self.gateway.publish(dict.fromkeys(CLUSTERS, ()))
            self._add(self.gateway.program(cors_origins=options.cors_origins))

    async def boot(self) -> None:
        """Starts everything, in parallel where it is independent. Returns when all of it is ready."""
        for name, process in self.servers.items():
            if name != "rabbitmq":
                process.start()
        try:
            async with asyncio.TaskGroup() as group:
                if "rabbitmq" in self.servers:
                    group.create_task(self._start_node())
                if self.options.has("services"):
                    group.create_task(self._start_services())
            await asyncio.gather(*(process.until_running() for process in self.servers.values()))
        except* LocalError as group_of_errors:
            raise group_of_errors.exceptions[0] from None

    async def _start_node(self) -> None:
        if "epmd" in self.servers:
            await self.servers["epmd"].until_running()
        self.servers["rabbitmq"].start()

    async def _start_services(self) -> None:
        if "postgres" in self.servers:
            await self.servers["postgres"].until_running()
        if self.gateway is None or self.mail is None:
            raise LocalError("the services need the mail receiver and the gateway")
        addresses = Addresses(
            gateway_url=self.gateway.url(),
            auth_internal_url=self.gateway.url("auth-internal"),
            users_internal_url=self.gateway.url("users-internal"),
            postgres_url=self.postgres_url,
            amqp_url=self.amqp_url,
            own_broker=self.rabbitmq is not None,
            smtp_port=self.mail.port,
        )
        programs.write_secrets(self.state, addresses)
        passwords = {service: programs.database_password(self.state, service) for service in ROLES}
        await ensure_databases(self.postgres_url, passwords)
        self.fleet = Fleet(self.state, addresses, self.gateway, self._record)
        await self.fleet.begin(self.servers.get("rabbitmq"))
        await asyncio.gather(*(self.fleet.until_serving([member]) for member in self.fleet.members()))
        users = self.fleet.members("users", "api")[0]
        self.admin = await ensure_admin(self.state, addresses, users.program.port)

    @property
    def amqp_url(self) -> str:
        return self.rabbitmq.amqp_url if self.rabbitmq is not None else (self.options.amqp_url or "")

    def processes(self) -> Iterator[Process]:
        yield from self.servers.values()
        if self.fleet is not None:
            for member in self.fleet.members():
                yield member.process

    def select(self, target: str) -> tuple[list[Process], list[Member]]:
        """Finds the servers and the services' processes that `target`, NAME or NAME:ROLE, selects."""
        name, _, role = target.partition(":")
        if name in self.servers and not role:
            return [self.servers[name]], []
        members = self.fleet.members(name, role or None) if self.fleet is not None else []
        if name not in ROLES or (role and role not in ROLES[name]):
            known = [*self.servers, *(f"{service}[:{'|'.join(roles)}]" for service, roles in ROLES.items())]
            raise LocalError(f"{target}: no such process. Known: {', '.join(known)}.")
        return [], members

    async def stop(self) -> None:
        """Stops the services first, without failing a request in the gateway, then the servers that they use."""
        if self.fleet is not None:
            await self.fleet.stop(self.fleet.members())
        epmd = self.servers.get("epmd")
        await asyncio.gather(*(process.stop() for process in self.servers.values() if process is not epmd))
        if epmd is not None:
            await epmd.stop()

    def _add(self, program: Program) -> None:
        self.servers[program.name] = Process(program, role="server", changed=self._record)

    def _record(self) -> None:
        pids = {process.program.name: process.pid for process in self.processes() if process.pid is not None}
        leftovers.record(self.state, pids)
