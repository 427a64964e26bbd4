"""The services' processes: started, scaled and stopped, with the gateway sending traffic only to those that stay."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain

from local.failure import LocalError
from local.gateway import Endpoint, Gateway
from local.migrations import migrate
from local.process import Process, Status
from local.services import ROLES, WITH_INTERNAL_PORT, Addresses, ServiceProgram, service_program
from local.state import State

MOST_PROCESSES = 32


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

    async def begin(self) -> None:
        """Migrates each service's database, then starts one process of each of its roles."""
        async with asyncio.TaskGroup() as group:
            for service in ROLES:
                group.create_task(self._begin(service))

    async def _begin(self, service: str) -> None:
        await migrate(self._state, self.addresses, service)
        for role in ROLES[service]:
            self._add(service, role)
        self._publish()

    def start(self, members: Iterable[Member]) -> None:
        for member in members:
            member.leaving = False
            member.process.start()
        self._publish()

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
            await member.process.until_running()

    async def scale(self, service: str, role: str, count: int) -> list[Process]:
        """Starts or stops processes until there are `count`; returns those that are there then."""
        if not 0 <= count <= MOST_PROCESSES:
            raise LocalError(f"between 0 and {MOST_PROCESSES} processes, please")
        members = self._roles[service, role]
        surplus = members[count:]
        while len(members) < count:
            self._add(service, role)
        await self.stop(surplus)
        del members[count:]
        self.start(members)
        return [member.process for member in members]

    def _add(self, service: str, role: str) -> None:
        members = self._roles[service, role]
        program = service_program(self._state, self.addresses, service, role, index=len(members) + 1)
        member = Member(program, Process(program.program, role=role, changed=self._changed))
        members.append(member)
        member.process.start()

    def _publish(self) -> None:
        clusters: dict[str, list[Endpoint]] = {}
        for service in ROLES:
            apis = [
                member.program
                for member in self._roles[service, "api"]
                if not member.leaving and member.process.status is not Status.STOPPED
            ]
            clusters[service] = [Endpoint(api.port, api.port) for api in apis]
            if service in WITH_INTERNAL_PORT:
                clusters[f"{service}-internal"] = [
                    Endpoint(api.internal_port, api.port) for api in apis if api.internal_port is not None
                ]
        self._gateway.publish(clusters)
