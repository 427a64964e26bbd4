"""On a real broker: an event of users arrives, sessions end, and another service refuses their tokens."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import aio_pika
import pytest
from pydantic import SecretStr

from auth.consumers import handlers
from auth.settings import Settings
from common.db.database import new_id, utc_now
from common.messaging import broker, topology
from common.messaging.cloudevents import Envelope, encode
from common.messaging.consumer import consume
from common.messaging.relay import relay
from common.runtime.health import Health
from common.security.revocation import Denylist, RevocationFeed
from common.security.service_client import ServiceClient
from common.testing.plugin import eventually

from .conftest import Auth, Person, Users, is_ready, serving
from .test_sessions import bearer, sid


class ServiceToken:
    def __init__(self, auth: Auth) -> None:
        self._auth = auth

    async def token(self) -> str:
        return (await self._auth.service_token())["Authorization"].removeprefix("Bearer ")

    def forget(self, token: str) -> None: ...


class World:
    """Auth in all its roles, and the verifier of another service."""

    def __init__(self, auth: Auth, amqp_url: str) -> None:
        self.auth = auth
        self._amqp_url = amqp_url
        self.denylist = Denylist()
        internal = ServiceClient(auth.internal, str(auth.internal.base_url).rstrip("/"), ServiceToken(auth))
        self.feed = RevocationFeed("orders", amqp_url, internal, self.denylist, on_keys_changed=lambda: None)

    async def publish_from_users(self, what: str, person: Person, *, version: int, **data: Any) -> None:
        event = Envelope(
            id=new_id(),
            type=f"users.user.{what}.v1",
            subject=str(person.user_id),
            version=version,
            time=utc_now(),
            data=json.dumps({"user_id": str(person.user_id), **data}),
        )
        body, properties = encode(event)
        async with broker.connect(self._amqp_url, "users") as connection:
            channel = await broker.raw_channel(connection, confirms=True)
            await channel.basic_publish(body, exchange="users.events", routing_key=event.type, properties=properties)

    async def denied(self, tokens: dict[str, str]) -> bool:
        return self.denylist.denies(await self.auth.principal(tokens["access_token"]))


@pytest.fixture
async def world(settings: Settings, users: Users, amqp_url: str) -> AsyncIterator[World]:
    settings = settings.model_copy(update={"amqp_url": SecretStr(amqp_url), "retry_delays": (0.05, 0.05, 0.05)})
    connection = await aio_pika.connect(amqp_url)
    async with connection:
        await topology.declare_producer(await connection.channel(), "users")
    stop, relaying, consuming = asyncio.Event(), Health(), Health()
    async with serving(settings, users) as auth, contextlib.AsyncExitStack() as stack:
        world = World(auth, amqp_url)
        roles = asyncio.gather(relay(settings, relaying, stop), consume(settings, consuming, stop, handlers))
        feed = asyncio.ensure_future(world.feed.run())

        @stack.push_async_callback
        async def stopped() -> None:
            stop.set()
            feed.cancel()
            await asyncio.gather(roles, feed, return_exceptions=True)

        for ready in (lambda: is_ready(relaying), lambda: is_ready(consuming), lambda: _attached(world.feed)):
            await eventually(ready)
        yield world


async def _attached(feed: RevocationFeed) -> bool:
    return feed._attached


async def test_another_service_refuses_a_token_after_sign_out(world: World) -> None:
    tokens = await world.auth.sign_in(world.auth.users.add("ada@example.com"))
    assert not await world.denied(tokens)
    started = time.perf_counter()
    await world.auth.http.delete(f"/sessions/{sid(tokens)}", headers=bearer(tokens))
    await eventually(lambda: world.denied(tokens))
    assert time.perf_counter() - started < 5


async def test_another_service_refuses_the_tokens_of_a_deactivated_person(world: World) -> None:
    ada = world.auth.users.add("ada@example.com")
    tokens = await world.auth.sign_in(ada)
    await world.publish_from_users("deactivated", ada, version=2)
    await eventually(lambda: world.denied(tokens))
    assert (await world.auth.refresh(tokens["refresh_token"])).json()["error"] == "invalid_grant"


async def test_auth_processes_every_kind_of_event_it_consumes(world: World) -> None:
    ada = world.auth.users.add("ada@example.com")
    kept = await world.auth.sign_in(ada)
    other = await world.auth.sign_in(ada)
    await world.publish_from_users("email_verified", ada, version=2)
    await world.publish_from_users("password_changed", ada, version=3, except_session_id=sid(kept))
    await eventually(lambda: world.denied(other))
    assert not await world.denied(kept)
    await world.publish_from_users("role_changed", ada, version=4, role="staff", by="somebody")
    await eventually(lambda: world.denied(kept))
    fresh = (await world.auth.refresh(kept["refresh_token"])).json()
    assert (await world.auth.principal(fresh["access_token"])).roles == {"staff"}
    await world.publish_from_users("email_reverted", ada, version=5, email="ada@example.com")
    await eventually(lambda: world.denied(fresh))
    ada.version = 5
    again = await world.auth.sign_in(ada)
    await world.publish_from_users("erased", ada, version=6)
    await eventually(lambda: world.denied(again))
