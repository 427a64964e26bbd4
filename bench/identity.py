"""Sign-ins and sign-outs through the whole system: ÷ bare argon2, times of refusals, time to a 401 elsewhere.

Needs a running system (`./dev up`). Rounds are interleaved and medians compared: a drifting machine harms no side.
"""

import asyncio
import json
import os
import secrets
import statistics
import subprocess
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import argon2

ROUNDS = 3
SECONDS = 4.0
CONNECTIONS = 8
ACCOUNTS = 5
TRIES = 6
"""Refused sign-ins of one account, below what is throttled."""
SIGN_OUTS = 50
FORM = "application/x-www-form-urlencoded"
ROOT = Path(__file__).parents[1]


class Connection:
    """HTTP/1.1 kept alive, at next to no cost beside what is measured."""

    def __init__(self, gateway: str) -> None:
        self._server = urlsplit(gateway)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, method: str, path: str, body: str = "", kind: str = FORM, bearer: str = "") -> tuple[int, Any]:
        """Status, and the JSON of the answer's body."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._server.hostname, self._server.port)
        reader, writer = self._streams
        authorization = f"Authorization: Bearer {bearer}\r\n" if bearer else ""
        head = f"{method} {path} HTTP/1.1\r\nHost: {self._server.netloc}\r\n{authorization}Content-Type: {kind}\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in lines if line}
        content = await reader.readexactly(int(headers.get("content-length", "0")))
        return int(status.split()[1]), json.loads(content) if content else None

    async def sign_in(self, email: str, password: str) -> tuple[int, str]:
        """Status and access token."""
        form = urlencode({"grant_type": "password", "username": email, "password": password})
        status, answer = await self.ask("POST", "/token", form)
        return status, answer.get("access_token", "")

    async def sign_up(self) -> tuple[str, str, str]:
        """A new account that has signed in from here: id, address and password."""
        email, password = f"{secrets.token_hex(8)}@bench.example", secrets.token_urlsafe(18)
        body = json.dumps({"name": "Bench", "email": email, "password": password})
        status, answer = await self.ask("POST", "/users?send_welcome=false", body, "application/json")
        assert status == 201, answer
        assert (await self.sign_in(email, password))[0] == 200
        return answer["id"], email, password


def bare_argon2() -> float:
    """Verifications per second on all cores, with the parameters that users has."""
    hasher = argon2.PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
    kept, over = hasher.hash("password"), time.perf_counter() + SECONDS

    def verify() -> int:
        count = 0
        while time.perf_counter() < over:
            hasher.verify(kept, "password")
            count += 1
        return count

    cores = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(cores) as pool:
        return sum(future.result() for future in [pool.submit(verify) for _ in range(cores)]) / SECONDS


async def logins(gateway: str, accounts: list[tuple[str, str, str]]) -> float:
    """Password grants per second; what an overloaded machine refuses counts for nothing."""
    over = time.perf_counter() + SECONDS

    async def sign_in_again_and_again(account: tuple[str, str, str]) -> int:
        connection, count = Connection(gateway), 0
        while time.perf_counter() < over:
            status, _ = await connection.sign_in(*account[1:])
            count += status == 200
        return count

    return sum(await asyncio.gather(*map(sign_in_again_and_again, accounts))) / SECONDS


async def refusals(status: dict[str, Any]) -> None:
    """Medians of refused sign-ins: a wrong password, an unknown account, a deactivated one."""
    connection = Connection(status["gateway"])
    known = [await connection.sign_up() for _ in range(ACCOUNTS)]
    disabled = [await connection.sign_up() for _ in range(ACCOUNTS)]
    admin = (await connection.sign_in(status["admin"]["email"], status["admin"]["password"]))[1]
    for user_id, _, _ in disabled:
        assert (await connection.ask("POST", f"/users/{user_id}/deactivate", bearer=admin))[0] == 200
    attempts: dict[str, Callable[[int], Awaitable[tuple[int, str]]]] = {
        "wrong password": lambda n: connection.sign_in(known[n % ACCOUNTS][1], "not the password"),
        "unknown": lambda _: connection.sign_in(f"{secrets.token_hex(8)}@bench.example", "not the password"),
        "deactivated": lambda n: connection.sign_in(*disabled[n % ACCOUNTS][1:]),
    }
    times: dict[str, list[float]] = {name: [] for name in attempts}
    for number in range(ACCOUNTS * TRIES):
        for name, attempt in attempts.items():
            started = time.perf_counter()
            assert (await attempt(number))[0] == 400
            times[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values) * 1000 for name, values in times.items()}
    spread = max(medians.values()) / min(medians.values()) - 1
    print(", ".join(f"{name} {median:.1f} ms" for name, median in medians.items()))
    print(f"refusals differ by     {spread:6.1%}   goal ≤ 5 %")


async def sign_outs(gateway: str) -> None:
    """From the answer to `DELETE /sessions` to the 401 of orders."""
    connection = Connection(gateway)
    _, email, password = await connection.sign_up()
    lags = []
    for _ in range(SIGN_OUTS):
        _, bearer = await connection.sign_in(email, password)
        assert (await connection.ask("GET", "/orders", bearer=bearer))[0] == 200
        assert (await connection.ask("DELETE", "/sessions", bearer=bearer))[0] == 204
        started = time.perf_counter()
        while (await connection.ask("GET", "/orders", bearer=bearer))[0] != 401:
            assert time.perf_counter() - started < 300
        lags.append((time.perf_counter() - started) * 1000)
    p50, p99 = statistics.median(lags), statistics.quantiles(lags, n=100)[98]
    print(f"sign-out to 401        p50 {p50:.1f} ms, p99 {p99:.1f} ms   goal < 100 ms")


async def main() -> None:
    printed = subprocess.run([ROOT / "dev", "status", "--json"], check=True, capture_output=True, text=True).stdout  # noqa: ASYNC221, S603 - nothing else runs yet
    status = json.loads(printed)
    connection = Connection(status["gateway"])
    accounts = [await connection.sign_up() for _ in range(CONNECTIONS)]
    bare, whole = [], []
    for _ in range(ROUNDS):
        bare.append(await asyncio.to_thread(bare_argon2))
        whole.append(await logins(status["gateway"], accounts))
    ceiling, rate = statistics.median(bare), statistics.median(whole)
    print(f"bare argon2            {ceiling:6.1f}/s (min {min(bare):.1f}, max {max(bare):.1f})")
    print(f"password logins        {rate:6.1f}/s (min {min(whole):.1f}, max {max(whole):.1f})")
    print(f"logins ÷ bare argon2   {rate / ceiling:6.2f}   goal ≥ 0.9")
    await refusals(status)
    await sign_outs(status["gateway"])


if __name__ == "__main__":
    asyncio.run(main())
