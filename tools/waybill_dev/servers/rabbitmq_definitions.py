"""RabbitMQ's definitions file: users, permissions and policies, imported by the node at each boot."""

import base64
import hashlib
import os
import re
from collections.abc import Collection, Iterator, Mapping

from waybill_dev.base.declaration import SERVICES, Service
from waybill_dev.base.options import STREAM_BYTES

ADMINISTRATOR = "waybill-admin"
VIRTUAL_HOST = "/"
DELIVERY_LIMIT = 20  # only against crash loops; retries go through the retry queues
# A parked queue has no dead-letter target, so a limit would lose messages. RabbitMQ 4 applies 20 where none is set, and
# 3.10 does not accept -1 for none.
PARKED_DELIVERY_LIMIT = 1_000_000_000
# The stream of history keeps what the event log keeps, and never fills a disk.
HISTORY_MAX_AGE = "30D"
# Limit of a queue whose subscriber has stopped reading. Beyond it the oldest messages are dropped; the stream still has
# them.
SUBSCRIBER_MAX_BYTES = 1_000_000_000
UNROUTED_MAX_LENGTH = 100_000
UNROUTED_TTL_MS = 7 * 24 * 3600 * 1000


def definitions(
    *,
    services: Mapping[str, str],
    administrator: str,
    released: Collection[str] = (),
    stream_bytes: int = STREAM_BYTES,
) -> dict[str, list[dict[str, object]]]:
    """`services` maps each service, which is also the name of its user, to the user's password.

    `administrator` is the administrator's password. Only the administrator may write to the default exchange, which
    reaches every queue, and the services in `released`: they run as release 0.1.0, which sends its retries through it.
    `stream_bytes` limits the stream.
    """
    users = [_user(name, password, tags=[]) for name, password in services.items()]
    users.append(_user(ADMINISTRATOR, administrator, tags=["administrator"]))
    permissions = [
        _permission(
            name,
            configure=rf"^{name}\.",
            write=rf"^({name}\..*|amq\.default)$" if name in released else rf"^{name}\.",
            read=_readable(SERVICES[name]),
        )
        for name in services
    ]
    permissions.append(_permission(ADMINISTRATOR, configure=".*", write=".*", read=".*"))
    return {
        "vhosts": [{"name": VIRTUAL_HOST}],
        "users": users,
        "permissions": permissions,
        "topic_permissions": [row for name in services for row in _topic_permissions(SERVICES[name])],
        "policies": [
            _policy("inbound", r"\.inbound(\.[0-9]+)?$", {"delivery-limit": DELIVERY_LIMIT}),
            _policy("parked", r"\.inbound\.parked$", {"delivery-limit": PARKED_DELIVERY_LIMIT}),
            _policy(
                "unrouted",
                r"\.unrouted$",
                {"max-length": UNROUTED_MAX_LENGTH, "message-ttl": UNROUTED_TTL_MS},
            ),
            _policy("history", r"\.events\.log$", {"max-age": HISTORY_MAX_AGE, "max-length-bytes": stream_bytes}),
        ],
    }


def subscriber(name: str, password: str, queues: int = 1) -> dict[str, list[dict[str, object]]]:
    """An outside team with its queues, which may bind `NAME.inbound` to orders' events, consume, and nothing else.

    It can create no queue, because one that refuses (`x-overflow: reject-publish`) makes the broker refuse the event
    for everybody, and no policy can forbid it. It can publish nothing, and bind no exchange.

    With several queues, `NAME.inbound` is an exchange that shares all events of orders between `NAME.inbound.0` and so
    on by partition key, and the team binds nothing. Import the bindings one by one: a broker that imports many at once
    does so in any order, and after its next start in the order of the names, which gives the queues other keys.
    """
    permission = _permission(
        name,
        configure="^$",
        write=rf"^{name}\.inbound$" if queues == 1 else "^$",
        read=rf"^({name}\.(inbound|parked)|orders\.(events(\.log)?|replay))$"
        if queues == 1
        else rf"^({name}\.(inbound(\.[0-9]+)?|parked)|orders\.events\.log)$",
    )
    limits: dict[str, object] = {
        "delivery-limit": DELIVERY_LIMIT,
        "max-length-bytes": SUBSCRIBER_MAX_BYTES,
        # The alternative would block the relay, and so all other subscribers.
        "overflow": "drop-head",
    }
    dead, quorum = f"{name}.dead", {"x-queue-type": "quorum"}
    inbound, dead_letters = f"{name}.inbound", {**quorum, "x-dead-letter-exchange": dead}
    made = {
        "exchanges": [{**_durable(dead), "type": "fanout", "internal": False, "arguments": {}}],
        "queues": [{**_durable(f"{name}.parked"), "arguments": quorum}],
        "bindings": [_binding(dead, f"{name}.parked", "")],
    }
    if queues == 1:
        made["queues"].append({**_durable(inbound), "arguments": dead_letters})
    else:
        names = sorted(f"{inbound}.{number}" for number in range(queues))
        shared = {"type": "x-consistent-hash", "arguments": {"hash-header": "cloudEvents_partitionkey"}}
        made["exchanges"].append({**_durable(inbound), "internal": False, **shared})
        made["queues"] += [
            {**_durable(queue), "arguments": {**dead_letters, "x-single-active-consumer": True}} for queue in names
        ]
        made["bindings"] += [_binding(inbound, queue, "1") for queue in names]
        made["bindings"] += [
            _binding("orders.events", inbound, "orders.order.#", kind="exchange"),
            _binding("orders.replay", inbound, inbound, kind="exchange"),
        ]
    return {
        "users": [_user(name, password, tags=[])],
        "permissions": [permission],
        **made,
        "policies": [
            _policy(f"subscriber-{name}", rf"^{name}\.", limits, priority=1),
            # Reading a message and returning it counts as a delivery.
            _policy(
                f"subscriber-{name}-parked",
                rf"^{name}\.parked$",
                limits | {"delivery-limit": PARKED_DELIVERY_LIMIT},
                priority=2,
            ),
        ],
    }


def password_hash(password: str, *, salt: bytes | None = None) -> str:
    """As `rabbit_password_hashing_sha256` stores it: base64(salt + SHA-256(salt + password)), 4 bytes of salt.

    https://www.rabbitmq.com/docs/passwords#this-is-the-algorithm
    """
    salt = os.urandom(4) if salt is None else salt
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def _user(name: str, password: str, *, tags: list[str]) -> dict[str, object]:
    return {
        "name": name,
        "password_hash": password_hash(password),
        "hashing_algorithm": "rabbit_password_hashing_sha256",
        # RabbitMQ 4 requires a list; 3.10 accepts one.
        "tags": tags,
    }


def _permission(user: str, *, configure: str, write: str, read: str) -> dict[str, object]:
    return {"user": user, "vhost": VIRTUAL_HOST, "configure": configure, "write": write, "read": read}


def _readable(service: Service) -> str:
    """Its own names, and the exchanges that it binds its queues to: binding needs to read the exchange."""
    own = rf"{service.name}\..*"
    exchanges = [
        rf"{producer}\.(events|replay)" if producer in service.consumed else rf"{producer}\.events"
        for producer in service.readable
    ]
    return f"^({'|'.join([own, *exchanges])})$"


def _topic_permissions(service: Service) -> Iterator[dict[str, object]]:
    """What it may bind to, whether queues or exchanges of its own: each routing key literally, so no wider wildcard.

    Without a row for an exchange, RabbitMQ allows every routing key.
    https://www.rabbitmq.com/docs/access-control#topic-authorisation
    """
    for producer, patterns in service.readable.items():
        yield {
            "user": service.name,
            "vhost": VIRTUAL_HOST,
            "exchange": f"{producer}.events",
            "write": "^$",
            "read": f"^({'|'.join(map(re.escape, patterns))})$",
        }


def _durable(name: str) -> dict[str, object]:
    return {"vhost": VIRTUAL_HOST, "name": name, "durable": True, "auto_delete": False}


def _binding(source: str, destination: str, routing_key: str, *, kind: str = "queue") -> dict[str, object]:
    return {
        "vhost": VIRTUAL_HOST,
        "source": source,
        "destination": destination,
        "destination_type": kind,
        "routing_key": routing_key,
        "arguments": {},
    }


def _policy(name: str, pattern: str, definition: dict[str, object], *, priority: int = 0) -> dict[str, object]:
    return {
        "vhost": VIRTUAL_HOST,
        "name": name,
        "pattern": pattern,
        "apply-to": "queues",
        "priority": priority,
        "definition": definition,
    }
