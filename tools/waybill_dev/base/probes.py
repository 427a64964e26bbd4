"""Readiness probes for servers on this machine.

While the stack boots, a dozen processes are probed many times a second. This costs less than an HTTP client would.
"""

import asyncio
import base64
import json

from waybill_dev.base.state import LOOPBACK

TIMEOUT = 2.0
PATIENT_TIMEOUT = 20.0


async def listens(port: int) -> bool:
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(LOOPBACK, port), TIMEOUT)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


async def answers_http(port: int, path: str, *, auth: tuple[str, str] | None = None) -> bool:
    """Whether GET `path` answers 200 within TIMEOUT. Never raises."""
    headers = {}
    if auth is not None:
        headers["Authorization"] = "Basic " + base64.b64encode(":".join(auth).encode()).decode()
    try:
        async with asyncio.timeout(TIMEOUT):
            status, _ = await _exchange(port, f"GET {path}", headers, b"")
    except (OSError, TimeoutError, ValueError, IndexError):
        return False
    return status == 200


async def get_text(port: int, path: str) -> str:
    """The body of GET `path`; empty when nothing answers."""
    try:
        async with asyncio.timeout(TIMEOUT):
            _, body = await _exchange(port, f"GET {path}", {}, b"")
    except (OSError, TimeoutError, ValueError, IndexError):
        return ""
    return body


async def post_json(port: int, path: str, content: object) -> tuple[int, str]:
    """Returns (status, body). Raises OSError or TimeoutError."""
    async with asyncio.timeout(PATIENT_TIMEOUT):
        return await _exchange(port, f"POST {path}", {"Content-Type": "application/json"}, json.dumps(content).encode())


async def _exchange(port: int, what: str, headers: dict[str, str], body: bytes) -> tuple[int, str]:
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    fixed = {"Host": f"{LOOPBACK}:{port}", "Connection": "close", "Content-Length": str(len(body))}
    head = [f"{what} HTTP/1.1", *(f"{name}: {value}" for name, value in {**fixed, **headers}.items())]
    try:
        writer.write("\r\n".join([*head, "", ""]).encode() + body)
        status = int((await reader.readline()).split()[1])
        answer = await reader.read()
    finally:
        writer.close()
    return status, answer.partition(b"\r\n\r\n")[2].decode(errors="replace")
