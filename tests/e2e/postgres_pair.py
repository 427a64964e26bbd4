"""A PostgreSQL server with a streaming standby, behind one address that clients keep through a failover."""

import asyncio
import contextlib
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
from sqlalchemy.engine import make_url

from common.testing.plugin import eventually
from waybill_dev.base.privileges import drop_root, give_to
from waybill_dev.base.program import Program, base_environment, spawn
from waybill_dev.base.state import LOOPBACK, State, find_state
from waybill_dev.servers import postgres


class Pair:
    """`primary` is killed by `fail_over`, and `standby` promoted; commits wait for the standby."""

    def __init__(self, folder: Path, ports: tuple[int, int]) -> None:
        self.state = State(find_state().checkout, folder)
        self.state.make()
        folder.chmod(0o755)  # for the user that PostgreSQL runs as
        self.ports = ports
        self.target = ports[0]
        self.processes: list[subprocess.Popen[bytes]] = []
        self.proxy: asyncio.Server | None = None

    @property
    def url(self) -> str:
        assert self.proxy is not None
        return postgres.url(self.state, self.proxy.sockets[0].getsockname()[1])

    async def start(self) -> None:
        primary = postgres.program(self.state, self.ports[0], durable=True)
        await self._run(primary)
        self._copy()
        data = self.state.folder / "standby"
        words = [str(data) if word == str(self.state.folder / "postgres") else word for word in primary.command]
        words[words.index("-p") + 1] = str(self.ports[1])
        standby = Program("standby", tuple(words), self.state.logs / "standby.log", primary.ready, base_environment())
        await self._run(standby)
        await self._administer(0, "ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
        self.proxy = await asyncio.start_server(self._forward, LOOPBACK)

    async def stop(self) -> None:
        if self.proxy is not None:
            self.proxy.close()
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGQUIT)
            await asyncio.to_thread(process.wait)

    async def lose_the_primary(self) -> None:
        """The address leads to the standby from now on, which refuses writes."""
        self.processes[0].kill()
        await asyncio.to_thread(self.processes[0].wait)
        self.target = self.ports[1]

    async def promote(self) -> None:
        # A primary without a standby of its own must not wait for one.
        await self._administer(
            1, "SELECT pg_promote()", "ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()"
        )

    def _copy(self) -> None:
        standby = self.state.folder / "standby"
        standby.mkdir(mode=0o700)
        give_to(standby)
        url = make_url(postgres.url(self.state, self.ports[0]))
        subprocess.run(  # noqa: S603 - PostgreSQL's own program
            [
                *drop_root(standby),
                *(postgres.binary("pg_basebackup"), "-D", str(standby), "-R", "-X", "stream", "-c", "fast"),
                *("-d", url.render_as_string(hide_password=False)),
            ],
            check=True,
            env=base_environment(),
        )

    async def _run(self, program: Program) -> None:
        self.processes.append(await asyncio.to_thread(spawn, program))
        port = self.ports[len(self.processes) - 1]
        await eventually(lambda: postgres.answers(postgres.url(self.state, port)), within=60)

    async def _administer(self, server: int, *statements: str) -> None:
        connection = await asyncpg.connect(postgres.url(self.state, self.ports[server]))
        for statement in statements:
            await connection.execute(statement)
        await connection.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(LOOPBACK, self.target)
        except OSError:
            writer.close()
            return

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while content := await source.read(65536):
                    sink.write(content)
                    await sink.drain()
            sink.close()

        await asyncio.gather(pump(reader, back), pump(there, writer))


@contextlib.asynccontextmanager
async def running_pair(folder: Path, ports: tuple[int, int]) -> AsyncIterator[Pair]:
    pair = Pair(folder, ports)
    try:
        await pair.start()
        yield pair
    finally:
        await pair.stop()
