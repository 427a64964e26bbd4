"""Compares all that the services publish with `contracts/`: attributes, headers and data of each message."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aio_pika
from aio_pika.abc import AbstractIncomingMessage
from jsonschema import Draft202012Validator, FormatChecker

from common.messaging.asyncapi import HEADERS
from common.messaging.cloudevents import SCHEMA_PREFIX

EVENTS = Path(__file__).parents[2] / "contracts" / "events"
QUEUE = "tests.published"
HOUR_MS = 3_600_000


async def record(amqp_url: str) -> None:
    """Starts to collect published messages in a queue.

    It is a classic queue: a new quorum queue may not survive a test that kills the broker (docs/guarantees.md).
    """
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(QUEUE, durable=True, arguments={"x-expires": HOUR_MS})
        for service in ("auth", "users", "orders"):
            await queue.bind(f"{service}.events", "#")
        await queue.purge()


async def complaints(amqp_url: str) -> tuple[int, list[str]]:
    """Returns the number of messages and their differences from `contracts/`. Deletes the queue."""
    found, count = [], 0
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        queue = await channel.get_queue(QUEUE, ensure=False)
        while (message := await queue.get(no_ack=True, fail=False)) is not None:
            count += 1
            found += [f"{message.routing_key!r}: {complaint}" for complaint in _differences(message)]
        await channel.queue_delete(QUEUE)
    return count, found


def _differences(message: AbstractIncomingMessage) -> Iterator[str]:
    event_type, headers = message.routing_key or "", dict(message.headers)
    service = event_type.partition(".")[0]
    expected = {
        "exchange": (message.exchange, f"{service}.events"),
        "type": (message.type, event_type),
        "cloudEvents_type": (headers.get("cloudEvents_type"), event_type),
        "cloudEvents_source": (headers.get("cloudEvents_source"), f"/{service}"),
        "cloudEvents_dataschema": (headers.get("cloudEvents_dataschema"), f"{SCHEMA_PREFIX}{event_type}.schema.json"),
        "message_id": (message.message_id, headers.get("cloudEvents_id")),
        "app_id": (message.app_id, service),
        "content_type": (message.content_type, "application/json"),
        "delivery_mode": (int(message.delivery_mode or 0), 2),
    }
    yield from (f"{name} is {value!r}, not {right!r}" for name, (value, right) in expected.items() if value != right)
    yield from _schema_errors(headers, HEADERS)
    file = EVENTS / f"{event_type}.schema.json"
    if not file.exists():
        yield "is published and has no schema"
    else:
        yield from _schema_errors(json.loads(message.body.decode()), json.loads(file.read_text()))


def _schema_errors(value: Any, schema: dict[str, Any]) -> Iterator[str]:
    for error in Draft202012Validator(schema, format_checker=FormatChecker()).iter_errors(value):
        yield f"{error.json_path}: {error.message}"
