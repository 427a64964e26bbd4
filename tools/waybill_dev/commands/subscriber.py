"""`./dev subscriber NAME`: access to orders' events at the local broker for an outside subscriber."""

import re
from urllib.parse import urlsplit

import click
import httpx

from waybill_dev.base import credentials
from waybill_dev.base.state import find_state
from waybill_dev.errors import LocalError
from waybill_dev.servers import rabbitmq_definitions
from waybill_dev.services.programs import ROLES
from waybill_dev.supervision import control

NAME = re.compile(r"[a-z][a-z0-9-]{1,40}")


@click.command()
@click.argument("name")
@click.option(
    "--queues",
    default=1,
    show_default=True,
    type=click.IntRange(1, 32),
    help="With several, its processes share the events, each order's in order.",
)
def subscriber(name: str, queues: int) -> None:
    """Prints the AMQP URL of an outside subscriber.

    The first call creates the subscriber and its queues: NAME.inbound, which it may bind to orders' events, and
    NAME.parked. Later calls restore both, and withdraw the right to create queues, which 0.1.0 gave.
    """
    if not NAME.fullmatch(name) or name in {*ROLES, rabbitmq_definitions.ADMINISTRATOR}:
        raise LocalError(
            f"{name}: a subscriber's name has lower-case letters, digits and dashes, and is not a service's"
        )
    state = find_state()
    broker = control.call(state, "status")["broker"]
    if not broker or broker["management_url"] is None:
        raise LocalError("the broker is external: docs/events.md has the commands for its operator")
    password = credentials.secret(state, f"rabbitmq/{name}", "password")
    administrator = urlsplit(broker["amqp_url"])
    wanted = rabbitmq_definitions.subscriber(name, password, queues)
    # The bindings one by one, so that they are made in this order.
    steps = [{**wanted, "bindings": []}, *({"bindings": [binding]} for binding in wanted["bindings"])]
    with httpx.Client(
        base_url=f"{broker['management_url']}/api",
        auth=(administrator.username or "", administrator.password or ""),
        timeout=20,
    ) as api:
        answers = [api.post("/definitions", json=step) for step in steps]
        for answer in (*answers, listed := api.get("/queues/%2F")):
            if answer.is_error:
                raise LocalError(f"RabbitMQ answered {answer.status_code}: {answer.text}")
    made = {queue["name"]: queue["arguments"] for queue in wanted["queues"]}
    for queue in listed.json():
        if queue["name"].startswith(f"{name}.") and queue["arguments"] != made.get(queue["name"]):
            click.echo(f"{queue['name']} was not made here and may refuse events: see docs/events.md", err=True)
    print(f"amqp://{name}:{password}@{administrator.hostname}:{administrator.port}/")
