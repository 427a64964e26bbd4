"""A cluster of three RabbitMQ nodes on this machine, each of which a test may kill."""

import asyncio
import contextlib
import dataclasses
import os
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

from common.testing.plugin import eventually
from waybill_dev.base.state import State, find_state
from waybill_dev.servers.rabbitmq import RabbitMQ
from waybill_dev.servers.rabbitmq_definitions import ADMINISTRATOR
from waybill_dev.servers.rabbitmq_finder import find_programs
from waybill_dev.supervision.process import Process

NODES = 3
FORMATION = "cluster_formation.peer_discovery_backend = classic_config\n"


class Cluster:
    """`nodes` are keyed by their Erlang node names."""

    def __init__(self, folder: Path) -> None:
        self.nodes: dict[str, Process] = {}
        self.servers: list[RabbitMQ] = []
        programs = find_programs()
        assert programs is not None, "a cluster needs the programs of RabbitMQ, and there is only a container engine"
        names = [f"node{number}@localhost" for number in range(NODES)]
        for name in names:
            state = State(find_state().checkout, folder / name.partition("@")[0])
            state.make()
            if self.servers:
                # The nodes share the cookie and the administrator.
                shutil.copytree(self.servers[0].state.secrets, state.secrets, dirs_exist_ok=True)
            server = RabbitMQ(state, programs, {})
            epmd, node = server.programs()
            if not self.servers:
                self.epmd = Process(epmd, role="server")
                epmd_port = str(server.epmd_port)
            peers = (f"cluster_formation.classic_config.nodes.{n} = {peer}\n" for n, peer in enumerate(names, 1))
            with (server.folder / "rabbitmq.conf").open("a") as configuration:
                configuration.write(FORMATION + "".join(peers))
            own = {"RABBITMQ_NODENAME": name, "ERL_EPMD_PORT": epmd_port}
            program = dataclasses.replace(node, name=name, environment={**node.environment, **own})
            self.nodes[name] = Process(program, role="server")
            self.servers.append(server)

    @property
    def ports(self) -> list[int]:
        return [server.port for server in self.servers]

    @property
    def amqp_url(self) -> str:
        return self.servers[0].amqp_url

    async def start(self) -> None:
        """Starts the nodes one after the other: nodes that start at once may each form their own cluster."""
        self.epmd.start()
        await self.epmd.until_running()
        for process in self.nodes.values():
            process.start()
            await process.until_running()

    async def stop(self) -> None:
        await asyncio.gather(*(process.stop() for process in self.nodes.values()))
        await self.epmd.stop()

    async def kill(self, node: str) -> None:
        """Kills the node. Its supervisor restarts it."""
        pid = self.nodes[node].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    async def queue(self, name: str) -> dict[str, Any]:
        """The queue as a node that responds describes it: `leader`, `members`, `online` and more."""
        for server in self.servers:
            with contextlib.suppress(httpx.TransportError):
                async with httpx.AsyncClient(base_url=server.management_url, timeout=5) as client:
                    answer = await client.get(f"/api/queues/%2F/{name}", auth=(ADMINISTRATOR, server.password))
                if answer.status_code == 200:
                    found: dict[str, Any] = answer.json()
                    return found
        return {}

    async def leader(self, queue: str, *, other_than: str | None = None) -> str:
        """Waits until all members of the queue are online, and returns the node of its leader."""

        async def known() -> str | None:
            found = await self.queue(queue)
            leader = found.get("leader")
            is_complete = len(found.get("online", ())) == NODES == len(found.get("members", ()))
            return leader if leader and leader != other_than and is_complete else None

        return str(await eventually(known, within=90))


@contextlib.asynccontextmanager
async def cluster_in(folder: Path) -> AsyncIterator[Cluster]:
    cluster = Cluster(folder)
    try:
        await cluster.start()
        yield cluster
    finally:
        await cluster.stop()
