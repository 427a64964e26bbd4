"""Sign-ins and sign-outs at the gateway, and bare argon2, for `logins` and `revocation`."""

import asyncio
import json
import os
import secrets
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlencode, urlsplit

import argon2

from bench.table import Measured

CONNECTIONS = 8
ACCOUNTS = 5
TRIES = 6
"""Refused sign-ins per account, below the throttle."""
RESETS = 5
"""Requested resets per account, below the limit of mails."""
FORM = "application/x-www-form-urlencoded"


class Connection:
    """A minimal HTTP/1.1 keep-alive client, whose cost is negligible in the measurement."""

    def __init__(self, gateway: str) -> None:
        self._server = urlsplit(gateway)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def call(self, method: str, path: str, body: str = "", kind: str = FORM, bearer: str = "") -> tuple[int, Any]:
        """Returns the status and the JSON body of the response."""
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
        """Returns the status and the access token."""
        form = urlencode({"grant_type": "password", "username": email, "password": password})
        status, answer = await self.call("POST", "/token", form)
        return status, answer.get("access_token", "")

    async def sign_up(self) -> tuple[str, str, str]:
        """Creates an account and signs in. Returns its id, address and password."""
        email, password = f"{secrets.token_hex(8)}@bench.example", secrets.token_urlsafe(18)
        body = json.dumps({"name": "Bench", "email": email, "password": password})
        status, answer = await self.call("POST", "/users?send_welcome=false", body, "application/json")
        assert status == 201, answer
        assert (await self.sign_in(email, password))[0] == 200
        return answer["id"], email, password


def bare_argon2(seconds: float) -> float:
    """Verifications per second on all cores, with the parameters of users."""
    hasher = argon2.PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
    kept, began = hasher.hash("password"), time.perf_counter()

    def verify() -> int:
        count = 0
        while time.perf_counter() < began + seconds:
            hasher.verify(kept, "password")
            count += 1
        return count

    cores = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(cores) as pool:
        count = sum(future.result() for future in [pool.submit(verify) for _ in range(cores)])
    return count / (time.perf_counter() - began)


async def password_logins(gateway: str, accounts: list[tuple[str, str, str]], seconds: float) -> float:
    """Successful password grants per second."""
    began = time.perf_counter()

    async def sign_in_repeatedly(account: tuple[str, str, str]) -> int:
        connection, count = Connection(gateway), 0
        while time.perf_counter() < began + seconds:
            status, _ = await connection.sign_in(*account[1:])
            count += status == 200
        return count

    count = sum(await asyncio.gather(*map(sign_in_repeatedly, accounts)))
    return count / (time.perf_counter() - began)  # until the last one has ended


async def refusal_times(status: dict[str, Any], tries: int) -> Measured:
    """Medians in ms of refused sign-ins, by cause, and the slowest ÷ the fastest as `spread`: they must not differ."""
    connection = Connection(status["gateway"])
    known, disabled = await _accounts(status, connection)

    async def fail(email: str, password: str = "not the password") -> None:  # noqa: S107 - not a real password
        assert (await connection.sign_in(email, password))[0] == 400

    attempts = {
        "wrong password": lambda n: fail(known[n][1]),
        "unknown": lambda _: fail(_stranger()),
        "deactivated": lambda n: fail(*disabled[n][1:]),
    }
    return await _medians(attempts, min(tries, TRIES))


async def reset_times(status: dict[str, Any], tries: int) -> Measured:
    """The same of requested password resets, by kind of account."""
    connection = Connection(status["gateway"])
    known, disabled = await _accounts(status, connection)

    async def request_reset(email: str) -> None:
        body = json.dumps({"email": email})
        assert (await connection.call("POST", "/password-resets", body, "application/json"))[0] == 202

    attempts = {
        "known": lambda n: request_reset(known[n][1]),
        "unknown": lambda _: request_reset(_stranger()),
        "deactivated": lambda n: request_reset(disabled[n][1]),
    }
    return await _medians(attempts, min(tries, RESETS))


Account = tuple[str, str, str]
"""Id, address and password."""


async def _accounts(status: dict[str, Any], connection: Connection) -> tuple[list[Account], list[Account]]:
    """Active and deactivated accounts."""
    known = [await connection.sign_up() for _ in range(ACCOUNTS)]
    disabled = [await connection.sign_up() for _ in range(ACCOUNTS)]
    admin = (await connection.sign_in(status["admin"]["email"], status["admin"]["password"]))[1]
    for user_id, _, _ in disabled:
        assert (await connection.call("POST", f"/users/{user_id}/deactivate", bearer=admin))[0] == 200
    return known, disabled


def _stranger() -> str:
    return f"{secrets.token_hex(8)}@bench.example"


async def _medians(attempts: Mapping[str, Callable[[int], Awaitable[None]]], tries: int) -> dict[str, float]:
    """Medians in ms of interleaved attempts, `tries` per account, and their `spread`."""
    times: dict[str, list[float]] = {name: [] for name in attempts}
    for number in range(ACCOUNTS * tries):
        for name, attempt in attempts.items():
            started = time.perf_counter()
            await attempt(number % ACCOUNTS)
            times[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values) * 1000 for name, values in times.items()}
    return medians | {"spread": max(medians.values()) / min(medians.values())}


async def sign_outs(gateway: str, times: int) -> list[float]:
    """The times in ms from the response of `DELETE /sessions` to the first 401 of orders."""
    connection = Connection(gateway)
    _, email, password = await connection.sign_up()
    lags = []
    for _ in range(times):
        _, bearer = await connection.sign_in(email, password)
        assert (await connection.call("GET", "/orders", bearer=bearer))[0] == 200
        assert (await connection.call("DELETE", "/sessions", bearer=bearer))[0] == 204
        started = time.perf_counter()
        while (await connection.call("GET", "/orders", bearer=bearer))[0] != 401:
            assert time.perf_counter() - started < 300
        lags.append((time.perf_counter() - started) * 1000)
    return lags
