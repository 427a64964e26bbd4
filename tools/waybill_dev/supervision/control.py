"""How commands call the supervisor: one JSON line each way over loopback TCP, with a token from a private file.

TCP, because the path of a Unix socket is limited to about 100 bytes, and a checkout's may be longer.
"""

import asyncio
import hmac
import json
import secrets
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from waybill_dev.base.state import LOOPBACK, State, write_json
from waybill_dev.errors import LocalError

Action = Callable[..., Awaitable[object]]
RESPONSE_SECONDS = 300


class NotRunning(LocalError):
    """No supervisor runs for this state folder."""


async def serve(state: State, actions: Mapping[str, Action]) -> asyncio.Server:
    """Performs the actions that `call` requests, for as long as the returned server is open."""
    token = secrets.token_urlsafe(16)

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = json.loads(await reader.readline())
            if not hmac.compare_digest(str(request.get("token")), token):
                return
            response = await _perform(actions[request["action"]], request["arguments"])
            writer.write(json.dumps(response).encode() + b"\n")
            await writer.drain()
        except (ValueError, ConnectionError):
            pass  # not our protocol, or the caller closed the connection
        finally:
            writer.close()

    server = await asyncio.start_server(respond, LOOPBACK, 0)
    port = server.sockets[0].getsockname()[1]
    write_json(state.supervisor_file, {"port": port, "token": token})
    return server


async def _perform(action: Action, arguments: list[Any]) -> dict[str, object]:
    try:
        return {"result": await action(*arguments)}
    except LocalError as error:
        return {"error": str(error)}


def call(state: State, action: str, *arguments: object) -> Any:
    """Returns the action's result. Raises NotRunning, or the LocalError that the action raised."""
    try:
        address = json.loads(state.supervisor_file.read_text())
        with socket.create_connection((LOOPBACK, address["port"]), RESPONSE_SECONDS) as connection:
            request = {"token": address["token"], "action": action, "arguments": arguments}
            connection.sendall(json.dumps(request).encode() + b"\n")
            line = connection.makefile().readline()
    except (FileNotFoundError, ConnectionError) as error:
        raise NotRunning("the stack is not up (./dev up starts it)") from error
    if not line:
        raise NotRunning("the supervisor ended before it responded")
    response = json.loads(line)
    if "error" in response:
        raise LocalError(response["error"])
    return response["result"]
