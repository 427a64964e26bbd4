"""A service cannot publish events in another service's name, and forged events have no effect."""

import json
from pathlib import Path
from typing import Any

import aio_pika
import aiormq
import pytest

from common.db.database import new_id, utc_now
from common.messaging.cloudevents import Envelope, encode
from common.testing.plugin import eventually
from waybill_dev.services.programs import ROLES
from waybill_dev.testing import StackUnderTest

ROLE_CHANGED = "users.user.role_changed.v1"


def promotion(user_id: str) -> aio_pika.Message:
    """The event that would make the person an administrator, as users publishes it."""
    data = json.dumps({"user_id": user_id, "role": "admin"})
    body, properties = encode(Envelope(new_id(), ROLE_CHANGED, user_id, 1000, utc_now(), data))
    return aio_pika.Message(
        body,
        headers=properties.headers,
        message_id=properties.message_id,
        content_type=properties.content_type,
        type=ROLE_CHANGED,
        app_id="users",
    )


@pytest.mark.parametrize("service", ROLES)
async def test_no_service_can_publish_in_anothers_name(stack: StackUnderTest, customer: Any, service: str) -> None:
    amqp_url = (Path(stack.folder) / "secrets" / service / "waybill_amqp_url").read_text().strip()
    targets = [("", "auth.inbound"), ("auth.retry", "auth.inbound"), ("users.replay", "auth.inbound")]
    targets += [("users.events", ROLE_CHANGED), ("", f"{service}.inbound")]
    for exchange, routing_key in targets:
        if exchange.partition(".")[0] == service:
            continue  # its own
        async with await aio_pika.connect(amqp_url) as connection:
            channel = await connection.channel()
            target = channel.default_exchange if not exchange else await channel.get_exchange(exchange, ensure=False)
            with pytest.raises(aiormq.exceptions.ChannelAccessRefused):
                await target.publish(promotion(customer.id), routing_key)


async def test_an_event_that_the_brokers_administrator_forges_gives_no_one_a_role(
    stack: StackUnderTest, customer: Any
) -> None:
    forged = promotion(customer.id)
    async with await aio_pika.connect(stack.addresses["broker"]["amqp_url"]) as connection:
        await (await connection.channel()).default_exchange.publish(forged, "auth.inbound")

    async def parked() -> list[Any]:
        rows = json.loads(stack.dev("ops", "auth", "parked", "list", "--json"))
        return [row for row in rows if row["event_id"] == forged.message_id]

    (row,) = await eventually(parked, within=30)
    assert row["cause"] == "forged"
    refreshed = await customer.client.post(
        "/token",
        data={"grant_type": "refresh_token", "refresh_token": customer.tokens["refresh_token"], "client_id": "web"},
    )
    bearer = {"Authorization": f"Bearer {refreshed.json()['access_token']}"}
    assert (await customer.client.get("/users", headers=bearer)).status_code == 403
    stack.dev("ops", "auth", "parked", "discard", row["id"], "--reason", "forged by a test")
