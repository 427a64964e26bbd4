"""Refresh and client-credentials grants at auth, by a secret and by signed assertions, without the gateway."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from time import perf_counter, time
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from bench.identity import CONNECTIONS, Connection
from bench.processors import Stopwatch, processes
from bench.scale import Scale
from bench.table import Goal, Measured, Rounds, Table
from waybill_dev.base.state import find_state
from waybill_dev.supervision import control

LIMIT = 30.0
GOAL = Goal(300, 500)
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
CLIENT = {"name": "Bench", "grant_types": ["client_credentials"], "scopes": ["orders:read"]}

Grant = Callable[[Connection], Awaitable[None]]


async def run(scale: Scale, table: Table) -> None:
    rounds, status = Rounds(), control.call(find_state(), "status")
    grants = {
        "refresh": await _refresh(status),
        "client-credentials": await _client_credentials(status),
        "assertion": await _assertions(status),
    }
    for _ in range(min(scale.rounds, 3)):
        for name, grant in grants.items():
            await rounds.measure(name, _load, status, grant, scale.seconds, within=LIMIT)
    for name in grants:
        table.add(f"{name} grants, one process", rounds.median(name), "/s", key=f"{name} grants")
        what = f"{name} grants per core of auth and PostgreSQL"
        table.add(what, rounds.median(name, "per core"), "/s", goal=GOAL, key=f"{name} grants per core")
    for name in grants:
        for part, process in (("auth:api", "the API"), ("postgres", "PostgreSQL")):
            table.add(f"processor time of {process}: a {name} grant", rounds.median(name, part), "µs")


async def _load(status: dict[str, Any], grant: Grant, seconds: float) -> Measured:
    pids = {name: pid for name, pid in processes().items() if name in {"auth:api", "postgres"}}
    used, began = Stopwatch(pids), perf_counter()

    async def repeat() -> int:
        connection, count = Connection(status["services"]["auth"]["url"]), 0
        while perf_counter() < began + seconds:
            await grant(connection)
            count += 1
        return count

    count = sum(await asyncio.gather(*(repeat() for _ in range(CONNECTIONS))))
    spent = used.per_event(count)
    per_core = 1e6 / (spent["auth:api"] + spent["postgres"])
    return {"": count / (perf_counter() - began), "per core": per_core, **spent}


async def _refresh(status: dict[str, Any]) -> Grant:
    """Each refresh uses the token of the one before it: a connection has a session of its own."""
    gateway = Connection(status["gateway"])
    free: asyncio.Queue[str] = asyncio.Queue()
    for _ in range(CONNECTIONS):
        _, email, password = await gateway.sign_up()
        form = urlencode({"grant_type": "password", "username": email, "password": password})
        _, answer = await gateway.call("POST", "/token", form)
        free.put_nowait(answer["refresh_token"])

    async def grant(connection: Connection) -> None:
        form = urlencode({"grant_type": "refresh_token", "refresh_token": await free.get()})
        answered, answer = await connection.call("POST", "/token", form)
        assert answered == 200, answer
        free.put_nowait(answer["refresh_token"])

    return grant


async def _client(status: dict[str, Any], **fields: Any) -> dict[str, Any]:
    gateway = Connection(status["gateway"])
    _, admin = await gateway.sign_in(status["admin"]["email"], status["admin"]["password"])
    answered, client = await gateway.call("POST", "/clients", json.dumps(CLIENT | fields), "application/json", admin)
    assert answered == 201, client
    return dict(client)


async def _assertions(status: dict[str, Any]) -> Grant:
    """Client credentials by `private_key_jwt`: each grant has an assertion of its own. Signing is the load's work."""
    key = ec.generate_private_key(ec.SECP256R1())
    jwk = ECAlgorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": "bench"}
    client_id = (await _client(status, jwks={"keys": [jwk]}))["client_id"]

    async def grant(connection: Connection) -> None:
        claims = {"iss": client_id, "sub": client_id, "aud": status["gateway"], "exp": int(time()) + 60}
        assertion = jwt.encode(claims | {"jti": str(uuid4())}, key, algorithm="ES256", headers={"kid": "bench"})
        form = {"grant_type": "client_credentials", "client_assertion": assertion, "client_assertion_type": ASSERTION}
        answered, answer = await connection.call("POST", "/token", urlencode(form))
        assert answered == 200, answer

    return grant


async def _client_credentials(status: dict[str, Any]) -> Grant:
    client = await _client(status)
    form = urlencode(
        {
            "grant_type": "client_credentials",
            "client_id": client["client_id"],
            "client_secret": client["client_secret"],
        }
    )

    async def grant(connection: Connection) -> None:
        answered, answer = await connection.call("POST", "/token", form)
        assert answered == 200, answer

    return grant
