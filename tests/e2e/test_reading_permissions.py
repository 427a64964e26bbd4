"""The broker lets a service bind to the event types that it reads and to no others, which may hold personal data."""

import os
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from urllib.parse import urlsplit

import aio_pika
import httpx
import pytest
from aio_pika.abc import AbstractConnection, AbstractExchange, AbstractQueue
from aiormq.exceptions import ChannelAccessRefused

from common.testing.plugin import eventually
from waybill_dev.base.declaration import SERVICES
from waybill_dev.services.programs import ROLES
from waybill_dev.testing import StackUnderTest

from .published import EVENTS

Bindings = set[tuple[str, str]]
PRODUCERS = [name for name, service in SERVICES.items() if "relay" in service.roles]
READABLE: dict[str, Bindings] = {
    name: {(f"{producer}.events", key) for producer, keys in service.readable.items() for key in keys}
    for name, service in SERVICES.items()
}


def routing_keys(producer: str) -> set[str]:
    """Each type that the producer publishes, and wildcards that include some or all of them."""
    types = [file.name.removesuffix(".schema.json") for file in EVENTS.glob(f"{producer}.*.schema.json")]
    assert types
    keys = {"", "#", "*.*.*.*", "#.v1", f"{producer}.#"}
    for event_type in types:
        kind = event_type.rsplit(".", 2)[0]
        keys |= {event_type, f"{event_type}.#", f"*{event_type.removeprefix(producer)}", f"{kind}.*.*", f"{kind}.#"}
    return keys


@pytest.fixture
async def connection(stack: StackUnderTest, service: str) -> AsyncIterator[AbstractConnection]:
    amqp_url = (Path(stack.folder) / "secrets" / service / "waybill_amqp_url").read_text().strip()
    async with await aio_pika.connect(amqp_url) as connection:
        yield connection


async def allowed(connection: AbstractConnection, own: str, kind: str, wanted: Iterable[tuple[str, str]]) -> Bindings:
    """The wanted bindings that this connection may create, to a queue or an exchange of its own."""
    found = set()
    for source, key in wanted:
        channel = await connection.channel()  # a refusal closes it
        own_side: AbstractQueue | AbstractExchange
        if kind == "queue":
            own_side = await channel.declare_queue(own, exclusive=True)
        else:
            own_side = await channel.declare_exchange(own, "topic", auto_delete=True)
        try:
            await own_side.bind(source, key)
        except ChannelAccessRefused:
            continue
        found.add((source, key))
        await channel.close()
    if kind == "exchange":
        await (await connection.channel()).exchange_delete(own)
    return found


@pytest.mark.parametrize("kind", ["queue", "exchange"])
@pytest.mark.parametrize("service", ROLES)
async def test_a_service_can_bind_only_to_the_events_that_it_reads(
    connection: AbstractConnection, service: str, kind: str
) -> None:
    others = [producer for producer in PRODUCERS if producer != service]
    wanted = [(f"{producer}.events", key) for producer in others for key in sorted(routing_keys(producer))]
    own = f"{service}.test-{os.urandom(4).hex()}"
    assert await allowed(connection, own, kind, wanted) == READABLE[service]


@pytest.mark.parametrize("service", ROLES)
async def test_a_service_can_bind_for_replays_only_of_producers_whose_events_it_consumes(
    connection: AbstractConnection, service: str
) -> None:
    own = f"{service}.test-{os.urandom(4).hex()}"
    wanted = [(f"{producer}.replay", own) for producer in PRODUCERS if producer != service]
    consumed = {(f"{producer}.replay", own) for producer in SERVICES[service].consumed}
    assert await allowed(connection, own, "queue", wanted) == consumed


async def test_the_services_bind_to_everything_that_they_are_declared_to_read(stack: StackUnderTest) -> None:
    administrator = urlsplit(stack.addresses["broker"]["amqp_url"])
    login = (administrator.username or "", administrator.password or "")
    async with httpx.AsyncClient(base_url=stack.addresses["broker"]["management_url"], auth=login) as api:

        async def bound_as_declared() -> bool:  # a process that an earlier test killed may still be starting
            rows = (await api.get("/api/bindings/%2F")).raise_for_status().json()
            bound: dict[str, Bindings] = {name: set() for name in SERVICES}
            for row in rows:
                service, _, queue = row["destination"].partition(".")
                others = row["source"].endswith(".events") and not row["source"].startswith(f"{service}.")
                if service in SERVICES and others and queue.startswith(("inbound", "revocations")):
                    bound[service].add((row["source"], row["routing_key"]))
            assert bound == READABLE
            return True

        await eventually(bound_as_declared, within=30)
