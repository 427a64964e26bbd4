"""The secrets that deliveries are signed with, and their storage."""

import time
from typing import Any

import pytest
from standardwebhooks.webhooks import WebhookVerificationError

from common.db.database import new_id
from common.testing.plugin import eventually
from notifier.settings import Settings
from notifier.webhooks import handlers as webhook_handlers
from notifier.webhooks.models import Owner
from notifier.webhooks.secrets import SecretBox, encode_secret

from .delivering import delivering
from .receiver import Receiver
from .webhook_waiting import settled
from .world import KEY, World


async def test_a_replaced_secret_signs_along_with_the_new_one_until_it_expires(
    world: World, webhook_settings: Settings, receiver: Receiver
) -> None:
    user_id = new_id()
    webhook_id, old = await world.webhook(user_id, receiver.url)
    async with world.database.transaction() as session:
        _, secret = await webhook_handlers.replace_secret(
            session, SecretBox(KEY), webhook_id, owner=Owner(user_id=user_id)
        )
    new = encode_secret(secret)
    async with delivering(webhook_settings):
        await world.order("placed", user_id)
        await eventually(lambda: settled(world, "sent"))
        await world.rows("UPDATE webhooks SET previous_until = now() RETURNING id")
        await world.order("placed", user_id)
        await eventually(lambda: settled(world, "sent", "sent"))
    during, after = receiver.requests
    assert during.verified(old) == during.verified(new) == during.event
    assert after.verified(new) == after.event
    with pytest.raises(WebhookVerificationError):
        after.verified(old)


async def test_each_attempt_is_signed_with_its_own_time(
    world: World, webhook_settings: Settings, receiver: Receiver
) -> None:
    """Receivers refuse old signatures."""
    user_id = new_id()
    _, secret = await world.webhook(user_id, receiver.url)
    await world.order("placed", user_id)
    await world.rows("UPDATE notifications SET created_at = now() - interval '1 day' RETURNING id")
    async with delivering(webhook_settings):
        await eventually(lambda: settled(world, "sent"))
    [request] = receiver.requests
    assert abs(int(request.headers["webhook-timestamp"]) - time.time()) < 60
    request.verified(secret)


async def test_no_secret_is_stored_unencrypted(world: World) -> None:
    user_id = new_id()
    webhook_id, secret = await world.webhook(user_id)
    [row] = await world.rows("SELECT * FROM webhooks")
    unsealed = SecretBox(KEY).unseal(row["secret"], webhook_id)
    assert encode_secret(unsealed) == secret
    assert unsealed not in row["secret"]
    for box, owner in ((SecretBox(KEY), new_id()), (SecretBox(bytes(32)), webhook_id)):
        with pytest.raises(Exception, match=r"^$"):  # InvalidTag has no text
            box.unseal(row["secret"], owner)


def test_the_settings_accept_hosts_and_ports(settings: Settings) -> None:
    given: dict[str, Any] = settings.model_dump() | {"webhook_allow": "LocalHost:9000, [::1]:9001,"}
    assert Settings(**given).webhook_allow == {("localhost", 9000), ("::1", 9001)}
    with pytest.raises(ValueError, match="host:port"):
        Settings(**given | {"webhook_allow": "localhost"})
    with pytest.raises(ValueError, match="32 bytes"):
        Settings(**given | {"webhook_key": "c2hvcnQ="})
