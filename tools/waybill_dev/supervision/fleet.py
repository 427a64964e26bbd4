"""The services' processes: started, scaled and stopped, with the gateway sending traffic only to those that stay."""

import asyncio
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain

from waybill_dev.base.state import State
from waybill_dev.errors import LocalError
from waybill_dev.servers.gateway import Endpoint, Gateway
from waybill_dev.services import programs
from waybill_dev.services.migrations import migrate
from waybill_dev.services.programs import ROLES, WITH_INTERNAL_PORT, Addresses, ServiceProgram, service_program
from waybill_dev.supervision.process import Process, Status

MOST_PROCESSES = 32
POLL_SECONDS = 0.05
TRUST_SECONDS = 30.0


@dataclass
class Member:
    """One process of a role. While it is `leaving`, the gateway sends it nothing new."""

    program: ServiceProgram
    process: Process
    leaving: bool = False


class Fleet:
    def __init__(self, state: State, addresses: Addresses, gateway: Gateway, changed: Callable[[], None]) -> None:
        """`changed` is called after every change of a process's status."""
        self.addresses = addresses
        self._state = state
        self._gateway = gateway
        self._changed = changed
        self._roles: dict[tuple[str, str], list[Member]] = {
            (service, role): [] for service, roles in ROLES.items() for role in roles
        }

    def members(self, service: str | None = None, role: str | None = None) -> list[Member]:
        return list(
            chain.from_iterable(
                members
                for (its_service, its_role), members in self._roles.items()
                if service in (None, its_service) and role in (None, its_role)
            )
        )

    async def begin(self, broker: Process | None) -> None:
        """Migrates each service's database, then starts one process of each of its roles.

        A start takes processors, and the broker's is the longest: APIs start on all but one, and workers, who can do
        nothing without it, when it runs. None needs this order, but all are ready sooner.
        """
        async with asyncio.TaskGroup() as group:
            migrations = [group.create_task(migrate(self._state, self.addresses, service)) for service in ROLES]
            group.create_task(self._begin_apis(migrations))
            await asyncio.gather(*migrations)
            if broker is not None:
                await broker.until_running()
            for service, role in self._roles:
                if role != "api":
                    self._add(service, role)

    async def _begin_apis(self, migrations: Iterable[asyncio.Task[None]]) -> None:
        """In the order of `ROLES`: all others wait for auth."""
        places = asyncio.Semaphore(max(1, (os.cpu_count() or 1) - 1))

        async def begun(member: Member) -> None:
            await member.process.until_running()
            places.release()

        async with asyncio.TaskGroup() as group:
            for service, migration in zip(ROLES, migrations, strict=True):
                await migration
                await places.acquire()
                group.create_task(begun(self._add(service, "api")))

    def start(self, members: Iterable[Member]) -> None:
        for member in members:
            member.leaving = False
            if member.process.status is Status.STOPPED:
                member.process.program = programs.renewed(self._state, member.program)
            if self._is_known(member):
                member.process.start()

    def _is_known(self, member: Member) -> bool:
        return programs.has_role(self._state, member.program.service, member.program.role)

    async def until_serving(self, members: Iterable[Member]) -> None:
        """Until they are ready, and those that the gateway sends requests to have its trust as well.

        Raises LocalError when one does not get there.
        """
        for member in filter(self._is_known, members):
            await member.process.until_running()
            if member.program.role == "api":
                await self._until_trusted(member)

    async def _until_trusted(self, member: Member) -> None:
        api = member.program
        expected = [(api.service, api.port)]
        if api.internal_port is not None:
            expected.append((f"{api.service}-internal", api.internal_port))
        try:
            async with asyncio.timeout(TRUST_SECONDS):
                for cluster, port in expected:
                    while not await self._gateway.sends_to(cluster, port):  # noqa: ASYNC110 - nobody tells
                        await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            log = self._state.logs / "gateway.log"
            raise LocalError(f"the gateway sends nothing to {api.program.name}", log=log) from None

    async def stop(self, members: Iterable[Member]) -> None:
        """All at the same time; the gateway is told before they are."""
        members = list(members)
        for member in members:
            member.leaving = True
        self._publish()
        await asyncio.gather(*(member.process.stop() for member in members))

    async def restart(self, members: Iterable[Member]) -> None:
        """One after the other within a role, each waiting for the one before, so that the others serve meanwhile."""
        by_role: dict[tuple[str, str], list[Member]] = {}
        for member in members:
            by_role.setdefault((member.program.service, member.program.role), []).append(member)
        await asyncio.gather(*(self._restart_in_turn(group) for group in by_role.values()))

    async def _restart_in_turn(self, members: list[Member]) -> None:
        for member in members:
            await self.stop([member])
            self.start([member])
            await self.until_serving([member])

    async def scale(self, service: str, role: str, count: int) -> None:
        """Starts or stops processes until there are `count`, all of them serving."""
        if not 0 <= count <= MOST_PROCESSES:
            raise LocalError(f"between 0 and {MOST_PROCESSES} processes, please")
        members = self._roles[service, role]
        surplus = members[count:]
        while len(members) < count:
            self._add(service, role)
        await self.stop(surplus)
        del members[count:]
        self.start(members)
        await self.until_serving(members)

    def _add(self, service: str, role: str) -> Member:
        members = self._roles[service, role]
        program = service_program(self._state, self.addresses, service, role, index=len(members) + 1)
        member = Member(program, Process(program.program, role=role, changed=self._on_change))
        members.append(member)
        self.start([member])
        return member

    def _on_change(self) -> None:
        self._publish()
        self._changed()

    def _publish(self) -> None:
        """Only what runs is sent requests; a death is noticed here sooner than by a health check."""
        clusters: dict[str, list[Endpoint]] = {}
        for service in ROLES:
            apis = [
                member.program
                for member in self._roles[service, "api"]
                if not member.leaving and member.process.status is Status.RUNNING
            ]
            clusters[service] = [Endpoint(api.port, api.port) for api in apis]
            if service in WITH_INTERNAL_PORT:
                clusters[f"{service}-internal"] = [
                    Endpoint(api.internal_port, api.port) for api in apis if api.internal_port is not None
                ]
        self._gateway.publish(clusters)
