"""Serves an ASGI app in one process with one event loop and one or two sockets. A stop fails no request."""

import asyncio
import gc
import socket
from collections.abc import Awaitable, Callable, Sequence
from types import FrameType
from typing import Any, Final

import structlog
import uvicorn

from common.runtime.health import Health
from common.runtime.http_protocol import UpgradeIgnoringProtocol

log = structlog.get_logger(__name__)

_STOP_TIMEOUT: Final = 25
"""Seconds. Containers get 30 or more before they are killed."""


class Server(uvicorn.Server):
    """The first signal makes the process not ready and calls `on_stop`. The second closes the server at once."""

    def __init__(self, app: Any, health: Health, on_stop: Callable[["Server"], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                loop="uvloop",
                http=UpgradeIgnoringProtocol,
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=_STOP_TIMEOUT,
            )
        )
        self._health = health
        self._on_stop = on_stop

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's hook
        # A signal handler may run in the middle of anything, so the rest runs in the loop.
        asyncio.get_running_loop().call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        if self._health.draining:
            self.close()
        else:
            self._health.draining = True
            self._on_stop(self)

    def close(self) -> None:
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # What exists now lives as long as the process. Collections that skip it shorten the slowest requests.
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000, 20, 20)
        gc.enable()


def serve_api(app: Any, health: Health, sockets: Sequence[socket.socket], *, drain_seconds: float) -> None:
    """Serves until a signal, and then for `drain_seconds` while not ready, so that load balancers notice first."""

    def drain(server: Server) -> None:
        asyncio.get_running_loop().call_later(drain_seconds, server.close)

    Server(app, health, drain).run(list(sockets))


def serve_worker(
    app: Any,
    health: Health,
    sockets: Sequence[socket.socket],
    work: Callable[[asyncio.Event], Awaitable[None]],
) -> bool:
    """Runs `work` and serves its health endpoints. Sets the event to stop the work. Returns whether it succeeded."""

    async def main() -> bool:
        stop = asyncio.Event()
        server = Server(app, health, lambda _: stop.set())
        working = asyncio.ensure_future(work(stop))
        working.add_done_callback(lambda _: server.close())
        await server.serve(list(sockets))
        stop.set()
        try:
            async with asyncio.timeout(_STOP_TIMEOUT):
                await working
        except Exception as error:
            log.critical("worker failed", exc_info=error)
            return False
        return True

    with asyncio.Runner(loop_factory=server_loop) as runner:
        return runner.run(main())


def server_loop() -> asyncio.AbstractEventLoop:
    return uvicorn.Config("", loop="uvloop", log_config=None).get_loop_factory()()  # type: ignore[misc]


def listen(host: str, port: int) -> socket.socket:
    """A bound socket. Raises an `OSError` that names the address, for example when it is in use."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror}") from None
    return listener
