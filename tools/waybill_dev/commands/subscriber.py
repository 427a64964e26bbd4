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
def subscriber(name: str) -> None:
    """Prints the AMQP URL of an outside subscriber.

    A subscriber may create queues and exchanges whose names begin with NAME. and bind them to orders' events. The first
    call creates the subscriber.
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
    answer = httpx.post(
        f"{broker['management_url']}/api/definitions",
        json=rabbitmq_definitions.subscriber(name, password),
        auth=(administrator.username or "", administrator.password or ""),
        timeout=20,
    )
    if answer.is_error:
        raise LocalError(f"RabbitMQ answered {answer.status_code}: {answer.text}")
    print(f"amqp://{name}:{password}@{administrator.hostname}:{administrator.port}/")
