"""A mail server that refuses us, whatever the mail, is waited for."""

from functools import partial

from prometheus_client import REGISTRY

from common.testing.plugin import eventually
from notifier.settings import Settings

from .delivering import all_sent, customer, delivering, has_cause
from .mailbox import Mailbox
from .world import World

REFUSALS_OF_US = [
    ("mail", "530 5.7.0 Authentication required"),
    ("mail", "421 Too busy"),
    ("rcpt", "554 5.7.1 <ann@example.com>: Relay access denied"),
    ("data", "550 5.4.5 Daily user sending limit exceeded"),
    ("rcpt", "454 4.7.1 Relay access denied"),
    ("data", "554 Transaction failed: Sending paused for this account"),
    ("data", "451 4.7.0 Try again later"),
    ("data", "452 4.5.3 Too many messages on this connection"),
]


async def test_a_server_that_refuses_us_for_ten_minutes_loses_and_fails_no_mail(
    world: World, settings: Settings, mailbox: Mailbox
) -> None:
    people = [await customer(world) for _ in range(6)]
    for user_id in people:
        await world.order("placed", user_id)
        await world.event("users.user.password_changed.v1", version=2, user_id=str(user_id))
    resting = partial(REGISTRY.get_sample_value, "waybill_delivery_channel_resting", {"channel": "mail"})
    async with delivering(settings):
        for minute in range(10):
            stage, answer = REFUSALS_OF_US[minute % len(REFUSALS_OF_US)]
            for each in ("mail", "rcpt", "data"):
                setattr(mailbox, f"{each}_answers", [answer] * 1000 if each == stage else [])
            # The time passes in the database alone.
            await world.execute("UPDATE deliveries SET due_at = due_at - interval '1 minute', cause = NULL")
            await eventually(partial(has_cause, world, answer))
            assert await world.states() == ["pending"] * 12
            assert resting() == 1
        for each in ("mail", "rcpt", "data"):
            setattr(mailbox, f"{each}_answers", [])
        await world.execute("UPDATE deliveries SET due_at = now()")
        await eventually(lambda: all_sent(world), within=30)
        assert resting() == 0
    assert len(mailbox.envelopes) == 12
    assert sorted(mailbox.texts()) == sorted(f"{user_id}@example.com" for user_id in people)
