"""A subscriber with several queues gets each order's events in one of them, in order, and can change nothing."""

import json
from collections import defaultdict
from typing import Any
from urllib.parse import urlsplit

from common.db.database import new_id, utc_now
from common.messaging import broker
from common.messaging.cloudevents import Envelope, encode
from common.messaging.topology import declare_producer
from common.testing.plugin import eventually, management
from waybill_dev.servers.rabbitmq_definitions import subscriber

PLACED = "orders.order.placed.v1"
QUEUES = 3


def in_vhost(row: dict[str, Any], vhost: str) -> dict[str, Any]:
    return {**row, "vhost": vhost}


async def test_each_orders_events_arrive_in_one_queue_in_order(amqp_url: str) -> None:
    vhost = urlsplit(amqp_url).path.removeprefix("/")
    made: dict[str, Any] = subscriber("acme", "secret", QUEUES)
    async with management() as api, broker.connect(amqp_url, "test") as connection:
        await declare_producer(await connection.channel(), "orders")
        parts = [{kind: [in_vhost(row, vhost) for row in made[kind]] for kind in ("exchanges", "queues")}]
        parts += [{"bindings": [in_vhost(row, vhost)]} for row in made["bindings"]]
        for part in parts:
            (await api.post("/api/definitions", json=part)).raise_for_status()
        channel = await broker.raw_channel(connection, confirms=True)
        received: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
        for number in range(QUEUES):

            async def receive(message: Any, queue: str = f"acme.inbound.{number}") -> None:
                headers = message.header.properties.headers
                received[headers["cloudEvents_subject"]].append((queue, headers["cloudEvents_aggregateversion"]))

            await channel.basic_consume(f"acme.inbound.{number}", receive, no_ack=True)
        orders = [str(new_id()) for _ in range(60)]
        for version in range(1, 4):
            for order in orders:
                body, properties = encode(
                    Envelope(new_id(), PLACED, order, version, utc_now(), json.dumps({"order_id": order}))
                )
                await channel.basic_publish(body, exchange="orders.events", routing_key=PLACED, properties=properties)

        async def all_received() -> bool:
            return sum(map(len, received.values())) == 180

        await eventually(all_received, within=30)
    queues = {order: {queue for queue, _ in received[order]} for order in orders}
    assert {len(each) for each in queues.values()} == {1}
    assert len(set.union(*queues.values())) == QUEUES
    assert all([version for _, version in received[order]] == [1, 2, 3] for order in orders)


def test_such_a_subscriber_may_only_read_its_queues_and_the_stream() -> None:
    permission: dict[str, Any] = subscriber("acme", "secret", QUEUES)["permissions"][0]
    assert (permission["configure"], permission["write"]) == ("^$", "^$")
    assert permission["read"] == r"^(acme\.(inbound(\.[0-9]+)?|parked)|orders\.events\.log)$"
