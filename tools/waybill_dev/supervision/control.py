"""How commands talk to the supervisor: one JSON line each way over loopback TCP, with a token from a private file.

TCP, as a Unix socket's path is limited to about 100 bytes and a checkout's may be longer.
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
ANSWER_SECONDS = 300


class NotRunning(LocalError):
    """There is no supervisor for this state folder."""


async def serve(state: State, actions: Mapping[str, Action]) -> asyncio.Server:
    """Answers `call` for as long as the returned server is open."""
    token = secrets.token_urlsafe(16)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = json.loads(await reader.readline())
            if not hmac.compare_digest(str(request.get("token")), token):
                return
            response = await _perform(actions[request["action"]], request["arguments"])
            writer.write(json.dumps(response).encode() + b"\n")
            await writer.drain()
        except (ValueError, ConnectionError):
            pass  # not one of ours, or gone before the answer
        finally:
            writer.close()

    server = await asyncio.start_server(answer, LOOPBACK, 0)
    port = server.sockets[0].getsockname()[1]
    write_json(state.supervisor_file, {"port": port, "token": token})
    return server


async def _perform(action: Action, arguments: list[Any]) -> dict[str, object]:
    try:
        return {"result": await action(*arguments)}
    except LocalError as error:
        return {"error": str(error)}


def call(state: State, action: str, *arguments: object) -> Any:
    """The action's result. Raises NotRunning, or the LocalError that the action ended with."""
    try:
        address = json.loads(state.supervisor_file.read_text())
        with socket.create_connection((LOOPBACK, address["port"]), ANSWER_SECONDS) as connection:
            request = {"token": address["token"], "action": action, "arguments": arguments}
            connection.sendall(json.dumps(request).encode() + b"\n")
            answer = connection.makefile().readline()
    except (FileNotFoundError, ConnectionError) as error:
        raise NotRunning("the stack is not up (./dev up starts it)") from error
    if not answer:
        raise NotRunning("the supervisor went away while it was asked")
    response = json.loads(answer)
    if "error" in response:
        raise LocalError(response["error"])
    return response["result"]
