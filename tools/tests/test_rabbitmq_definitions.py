import json
import re
from typing import Any

import pytest

from waybill_dev.base.options import stream_bytes
from waybill_dev.base.state import find_state
from waybill_dev.servers.rabbitmq_definitions import definitions, password_hash, subscriber


def test_passwords_are_hashed_as_in_rabbitmqs_documentation() -> None:
    salt = bytes.fromhex("908dc60a")
    assert password_hash("test12", salt=salt) == "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"


def test_the_definitions_contain_no_password() -> None:
    text = str(definitions(services={"orders": "orders-secret"}, administrator="admin-secret"))
    assert "orders-secret" not in text
    assert "admin-secret" not in text


@pytest.mark.parametrize(
    ("service", "kind", "name", "allowed"),
    [
        ("notifier", "configure", "notifier.inbound.retry.5s", True),
        ("notifier", "configure", "orders.events", False),
        ("notifier", "write", "amq.default", False),
        ("notifier", "write", "notifier.retry", True),
        ("notifier", "write", "orders.replay", False),
        ("notifier", "read", "orders.replay", True),
        ("notifier", "write", "notifier.inbound", True),
        ("notifier", "write", "orders.events", False),
        ("notifier", "read", "orders.events", True),
        ("notifier", "read", "users.events", True),
        ("notifier", "read", "auth.inbound", False),
        ("notifier", "read", "xnotifier.inbound", False),
        ("orders", "read", "auth.events", True),
        ("orders", "read", "users.events", True),
        ("orders", "read", "notifier.inbound", False),
        ("users", "read", "orders.events", False),
        ("auth", "read", "orders.events", False),
        ("auth", "read", "users.replay", True),
        ("users", "read", "auth.events", True),
        ("users", "read", "auth.replay", False),
    ],
)
def test_a_service_may_use_its_own_names_and_read_the_events_that_it_consumes(
    service: str, kind: str, name: str, allowed: bool
) -> None:
    generated: dict[str, Any] = definitions(services={service: "x"}, administrator="y")
    permission = next(row for row in generated["permissions"] if row["user"] == service)
    assert bool(re.search(permission[kind], name)) is allowed


@pytest.mark.parametrize(
    ("service", "exchange", "routing_key", "allowed"),
    [
        ("orders", "users.events", "users.user.erased.v1", True),
        ("orders", "users.events", "users.user.registered.v1", False),
        ("orders", "users.events", "users.user.*.v1", False),
        ("orders", "users.events", "users.user.erased.v1.#", False),
        ("orders", "users.events", "#", False),
        ("orders", "auth.events", "auth.subject.revoked.v1", True),
        ("orders", "auth.events", "auth.session.started.v1", False),
        ("notifier", "orders.events", "orders.order.#", True),
        ("notifier", "orders.events", "#", False),
    ],
)
def test_a_service_may_bind_to_the_routing_keys_that_it_reads_and_to_no_wildcard_around_them(
    service: str, exchange: str, routing_key: str, allowed: bool
) -> None:
    generated: dict[str, Any] = definitions(services={service: "x"}, administrator="y")
    permission = next(row for row in generated["topic_permissions"] if row["exchange"] == exchange)
    assert bool(re.search(permission["read"], routing_key)) is allowed


@pytest.mark.parametrize(
    ("kind", "name", "allowed"),
    [
        ("configure", "acme.inbound", False),
        ("configure", "acme", False),
        ("configure", "orders.events.log", False),
        ("write", "acme.inbound", True),
        ("write", "xacme.inbound", False),
        ("write", "acme.dead", False),
        ("write", "acme.parked", False),
        ("read", "acme.inbound", True),
        ("read", "acme.parked", True),
        ("write", "amq.default", False),
        ("write", "orders.events", False),
        ("read", "orders.events", True),
        ("read", "orders.events.log", True),
        ("read", "orders.events.unrouted", False),
        ("read", "users.events", False),
        ("read", "notifier.inbound", False),
    ],
)
def test_a_subscriber_may_read_and_bind_its_queue_and_creates_nothing(kind: str, name: str, allowed: bool) -> None:
    generated: dict[str, Any] = subscriber("acme", "secret")
    assert "secret" not in str(generated)
    assert bool(re.search(generated["permissions"][0][kind], name)) is allowed


def test_only_a_service_of_the_last_release_may_write_to_the_default_exchange() -> None:
    generated = definitions(services={"orders": "", "auth": ""}, administrator="", released=["orders"])
    allowed = {row["user"]: bool(re.search(str(row["write"]), "amq.default")) for row in generated["permissions"]}
    assert allowed == {"orders": True, "auth": False, "waybill-admin": True}


def test_the_documented_commands_create_the_subscriber_of_the_local_broker() -> None:
    page = (find_state().checkout / "docs" / "events.md").read_text()
    made: dict[str, Any] = subscriber("acme", "secret")
    granted = re.search(r"^rabbitmqctl set_permissions acme '(.+)' '(.+)' '(.+)'$", page, re.MULTILINE)
    assert granted is not None
    assert granted.groups() == tuple(made["permissions"][0][kind] for kind in ("configure", "write", "read"))
    policies = re.findall(
        r"^rabbitmqctl set_policy (\S+) '(.+)' --apply-to queues --priority (\d) \\\n  '(.+)'$", page, re.MULTILINE
    )
    assert [(name, pattern, int(priority), json.loads(limits)) for name, pattern, priority, limits in policies] == [
        (row["name"], row["pattern"], row["priority"], row["definition"]) for row in made["policies"]
    ]
    imported = page[page.index("<<'EOF'\n") + len("<<'EOF'\n") : page.index("\nEOF\n")]
    assert json.loads(imported) == {kind: made[kind] for kind in ("exchanges", "queues", "bindings")}


def test_the_size_of_the_stream_is_a_setting() -> None:
    made = definitions(
        services={}, administrator="x", stream_bytes=stream_bytes({"WAYBILL_STREAM_BYTES": "50000000000"})
    )
    [history] = [policy for policy in made["policies"] if policy["name"] == "history"]
    assert history["definition"] == {"max-age": "30D", "max-length-bytes": 50_000_000_000}
