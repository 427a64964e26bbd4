"""The operator's resources configure the broker on Kubernetes like the local one and as the services declare."""

from collections.abc import Iterable
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

import pytest
from aio_pika import Message

from common.messaging import broker, topology
from common.messaging.event_handlers import EventHandlers
from common.testing.plugin import eventually, management
from waybill_dev.base.declaration import SERVICES
from waybill_dev.servers.rabbitmq_definitions import (
    ADMINISTRATOR,
    DELIVERY_LIMIT,
    PARKED_DELIVERY_LIMIT,
    definitions,
    subscriber,
)
from waybill_dev.services.programs import ROLES

from .manifest_files import documents, of_kind
from .services_code import settings_of

TOPOLOGY = "components/broker/topology"
TOPOLOGY_KINDS = ("Exchange", "Queue", "Binding")
PRODUCERS = [settings_of(name) for name, service in SERVICES.items() if "relay" in service.roles]
CONSUMERS: dict[str, EventHandlers] = {
    name: import_module(f"{name}.consumers").handlers
    for name, service in SERVICES.items()
    if "consume" in service.roles
}
SERVERS: dict[str, Any] = definitions(services=dict.fromkeys(ROLES, ""), administrator="")


def test_the_brokers_permissions_are_those_of_the_local_one() -> None:
    wanted = {
        row["user"]: {kind: row[kind] for kind in ("configure", "write", "read")}
        for row in SERVERS["permissions"]
        if row["user"] != ADMINISTRATOR
    }
    permissions = of_kind("components/broker", "Permission")
    assert {name: found["spec"]["permissions"] for name, found in permissions.items()} == wanted
    assert {found["spec"]["userReference"]["name"] for found in permissions.values()} == set(ROLES)


def test_the_brokers_topic_permissions_are_those_of_the_local_one() -> None:
    found = [permission["spec"] for permission in of_kind("components/broker", "TopicPermission").values()]
    assert _sorted(
        {"user": spec["userReference"]["name"], "vhost": spec["vhost"], **spec["permissions"]} for spec in found
    ) == _sorted(SERVERS["topic_permissions"])


def test_the_brokers_policies_are_those_of_the_local_one() -> None:
    assert policies("components/broker") == as_resources(SERVERS["policies"])


def test_a_subscriber_has_the_permissions_of_the_local_broker() -> None:
    made: dict[str, Any] = subscriber("acme", "")
    (permission,) = of_kind("examples", "Permission").values()
    assert {"user": "acme", "vhost": "/", **permission["spec"]["permissions"]} == made["permissions"][0]
    assert policies("examples") == as_resources(made["policies"])


def test_a_subscriber_has_the_queues_of_the_local_broker() -> None:
    made: dict[str, Any] = subscriber("acme", "")
    specs = {
        kind: [found["spec"] for found in of_kind("examples", kind).values() if "acme" in str(found["spec"])]
        for kind in TOPOLOGY_KINDS
    }
    assert [(spec["name"], spec["type"], spec["durable"], spec.get("arguments", {})) for spec in specs["Exchange"]] == [
        (row["name"], row["type"], row["durable"], row["arguments"]) for row in made["exchanges"]
    ]
    assert _sorted(
        (spec["name"], spec["durable"], {**spec.get("arguments", {}), "x-queue-type": spec["type"]})
        for spec in specs["Queue"]
    ) == _sorted((row["name"], row["durable"], row["arguments"]) for row in made["queues"])
    assert [(spec["source"], spec["destination"], spec.get("routingKey", "")) for spec in specs["Binding"]] == [
        (row["source"], row["destination"], row["routing_key"]) for row in made["bindings"]
    ]


def policies(folder: str) -> list[dict[str, Any]]:
    return sorted((found["spec"] for found in of_kind(folder, "Policy").values()), key=lambda spec: str(spec["name"]))


def as_resources(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Policies as specs of the Topology Operator's resources."""
    cluster = {"rabbitmqClusterReference": {"name": "rabbitmq"}}
    specs = [{**cluster, "applyTo": row["apply-to"], **row} for row in rows]
    for spec in specs:
        del spec["apply-to"]
    return sorted(specs, key=lambda spec: str(spec["name"]))


async def test_the_brokers_topology_is_what_the_services_declare(amqp_url: str) -> None:
    async with broker.connect(amqp_url, "test") as connection:
        channel = await connection.channel()
        for producer in PRODUCERS:
            await topology.declare_producer(channel, producer.service, producer.streamed)
        for service, handlers in CONSUMERS.items():
            await topology.declare_consumer(connection, service, handlers.bindings)
    async with management() as api:
        declared = (await api.get(f"/api/definitions/{urlsplit(amqp_url).path.removeprefix('/')}")).json()
    specs = {kind: [found["spec"] for found in documents(TOPOLOGY) if found["kind"] == kind] for kind in TOPOLOGY_KINDS}
    assert _sorted(
        {key: spec[key] for key in ("name", "type", "durable")} | {"arguments": spec.get("arguments", {})}
        for spec in specs["Exchange"]
    ) == _sorted({key: row[key] for key in ("name", "type", "durable", "arguments")} for row in declared["exchanges"])
    assert _sorted(
        (spec["name"], spec["durable"], {**spec.get("arguments", {}), "x-queue-type": spec["type"]})
        for spec in specs["Queue"]
    ) == _sorted((row["name"], row["durable"], row["arguments"]) for row in declared["queues"])
    assert _sorted((spec["source"], spec["destination"], spec.get("routingKey", "")) for spec in specs["Binding"]) == (
        _sorted((row["source"], row["destination"], row["routing_key"]) for row in declared["bindings"])
    )


async def test_what_is_parked_stays_however_often_its_consumer_dies(amqp_url: str) -> None:
    """A parked queue has no dead-letter target, so RabbitMQ 4's default delivery limit would lose messages."""
    vhost = urlsplit(amqp_url).path.removeprefix("/")
    async with management() as api, broker.connect(amqp_url, "test") as connection:
        for policy in SERVERS["policies"]:
            made = {key: policy[key] for key in ("pattern", "definition", "priority", "apply-to")}
            (await api.put(f"/api/policies/{vhost}/{policy['name']}", json=made)).raise_for_status()
        channel = await connection.channel()
        await topology.declare_consumer(connection, "notifier", [])
        parked = await channel.get_queue("notifier.inbound.parked")
        await (await channel.get_exchange("notifier.retry")).publish(Message(b"parked"), parked.name)
        for _ in range(2 * DELIVERY_LIMIT):
            await (await parked.get(timeout=10)).reject(requeue=True)

        async def limit() -> int:  # 3.10 has no default limit, so the rejections above prove little there
            described = (await api.get(f"/api/queues/{vhost}/{parked.name}")).json()
            return int(described["effective_policy_definition"]["delivery-limit"])

        assert await eventually(limit, within=20) == PARKED_DELIVERY_LIMIT


def test_no_message_goes_with_its_manifest() -> None:
    queues = of_kind(TOPOLOGY, "Queue").values()
    assert {queue["spec"]["deletionPolicy"] for queue in queues} == {"retain"}


@pytest.mark.parametrize("service", ROLES)
def test_a_service_may_read_the_events_that_it_binds_to_and_no_others(service: str) -> None:
    bindings = CONSUMERS[service].bindings if service in CONSUMERS else []
    assert set(SERVICES[service].reads) == {routing_key for _, routing_key in bindings}


def _sorted(rows: Iterable[Any]) -> list[Any]:
    return sorted(rows, key=str)
