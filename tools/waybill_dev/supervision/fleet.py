"""Starts, scales and stops the services' processes, and keeps the gateway's list of endpoints."""

import asyncio
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain

from waybill_dev.base.state import State
from waybill_dev.errors import LocalError
from waybill_dev.progress import say
from waybill_dev.servers.gateway import Endpoint, Gateway
from waybill_dev.services import programs
from waybill_dev.services.migrations import migrate
from waybill_dev.services.programs import ROLES, WITH_INTERNAL_PORT, Addresses, ServiceProgram, service_program
from waybill_dev.supervision.process import Process, Status

MAX_PROCESSES = 32
POLL_SECONDS = 0.05
ROUTED_SECONDS = 30.0


@dataclass
class Member:
    """One process of a role. The gateway sends no new requests to one that is `leaving`."""

    program: ServiceProgram
    process: Process
    leaving: bool = False


class Fleet:
    def __init__(self, state: State, addresses: Addresses, gateway: Gateway, changed: Callable[[], None]) -> None:
        """`changed` is called whenever a process's status has changed."""
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

        The order is for speed alone. A start needs processor time, and the broker's needs most: so APIs start on all
        processors but one, and workers, which need the broker, once it runs.
        """
        async with asyncio.TaskGroup() as group:
            migrations = [group.create_task(migrate(self._state, self.addresses, service)) for service in ROLES]
            group.create_task(self._begin_apis(migrations))
            await asyncio.gather(*migrations)
            say(f"starting the services, {len(self._roles)} processes")
            if broker is not None:
                await broker.until_running()
            for service, role in self._roles:
                if role != "api":
                    self._add(service, role)

    async def _begin_apis(self, migrations: Iterable[asyncio.Task[None]]) -> None:
        """In the order of `ROLES`, which begins with auth, because all others wait for it."""
        slots = asyncio.Semaphore(max(1, (os.cpu_count() or 1) - 1))

        async def release_when_running(member: Member) -> None:
            await member.process.until_running()
            slots.release()

        async with asyncio.TaskGroup() as group:
            for service, migration in zip(ROLES, migrations, strict=True):
                await migration
                await slots.acquire()
                group.create_task(release_when_running(self._add(service, "api")))

    def start(self, members: Iterable[Member]) -> None:
        for member in members:
            member.leaving = False
            if member.process.status is Status.STOPPED:
                member.process.program = programs.renewed(self._state, member.program)
            if self._has_role(member):
                member.process.start()

    def _has_role(self, member: Member) -> bool:
        """Whether the version that the service runs from knows the role."""
        return programs.has_role(self._state, member.program.service, member.program.role)

    async def until_serving(self, members: Iterable[Member]) -> None:
        """Waits until all are ready, and the gateway routes requests to the APIs among them.

        Raises LocalError when one is not ready in time.
        """
        for member in filter(self._has_role, members):
            await member.process.until_running()
            if member.program.role == "api":
                await self._until_routed(member)

    async def _until_routed(self, member: Member) -> None:
        api = member.program
        expected = [(api.service, api.port)]
        if api.internal_port is not None:
            expected.append((f"{api.service}-internal", api.internal_port))
        try:
            async with asyncio.timeout(ROUTED_SECONDS):
                for cluster, port in expected:
                    while not await self._gateway.sends_to(cluster, port):  # noqa: ASYNC110 - Envoy has no event for it
                        await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            log = self._state.logs / "gateway.log"
            raise LocalError(f"the gateway does not route to {api.program.name}", log=log) from None

    async def stop(self, members: Iterable[Member]) -> None:
        """Takes all of them out of the gateway first, then stops them at the same time."""
        members = list(members)
        for member in members:
            member.leaving = True
        self._publish()
        await asyncio.gather(*(member.process.stop() for member in members))

    async def restart(self, members: Iterable[Member]) -> None:
        """Restarts the processes of a role one after the other, so that the others serve meanwhile."""
        by_role: dict[tuple[str, str], list[Member]] = {}
        for member in members:
            by_role.setdefault((member.program.service, member.program.role), []).append(member)
        await asyncio.gather(*(self._restart_one_by_one(group) for group in by_role.values()))

    async def _restart_one_by_one(self, members: list[Member]) -> None:
        for member in members:
            await self.stop([member])
            self.start([member])
            await self.until_serving([member])

    async def scale(self, service: str, role: str, count: int) -> None:
        """Starts or stops processes until there are `count`, all of them serving."""
        if not 0 <= count <= MAX_PROCESSES:
            raise LocalError(f"the number of processes must be from 0 to {MAX_PROCESSES}")
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
        """Gives the gateway the running APIs. This notices a death sooner than a health check does."""
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
