"""The rules of contacts and deliveries, and what the database itself refuses."""

from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast, get_args

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from common.db.database import new_id
from notifier.consumers import handlers
from notifier.mail.queue import MailQueue
from notifier.models import TITLES, Contact, Kind, SecurityKind, preference_of
from notifier.queries import ClaimedDelivery
from notifier.webhooks.channel import TIMEOUT
from notifier.webhooks.models import EventType
from notifier.webhooks.queue import DELAYS

from .world import World


def contact(**fields: object) -> Contact:
    return Contact(
        **({"user_id": new_id(), "version": 0, "erased": False, "order_updates": True, "welcome": True} | fields)
    )


def test_a_contact_is_updated_only_by_newer_versions() -> None:
    person = contact()
    assert person.update(version=2, name="Ann", email="ann@example.com")
    assert not person.update(version=2, name="Bob", email="bob@example.com")
    assert not person.update(version=1, name="Bob", email="bob@example.com")
    assert (person.name, person.version, person.is_known) == ("Ann", 2, True)


def test_an_erased_contact_is_not_updated() -> None:
    person = contact(version=3, name="Ann", email="ann@example.com", order_updates=False)
    person.erase(version=2)
    assert (person.version, person.name, person.email, person.order_updates) == (3, None, None, True)
    assert not person.update(version=9, name="Ann", email="ann@example.com")
    assert not person.is_known


def test_every_kind_has_a_title() -> None:
    assert set(TITLES) == {kind for group in get_args(Kind) for kind in get_args(group)}


def test_webhooks_can_subscribe_to_every_event_of_an_order_that_notifies() -> None:
    assert set(get_args(EventType)) == {name for name in handlers.types if name.startswith("orders.order.")}


@pytest.mark.parametrize("kind", TITLES)
def test_a_preference_turns_off_every_kind_but_security_mails(kind: Kind) -> None:
    assert (preference_of(kind) is None) == (kind in get_args(SecurityKind))


def test_an_address_is_verified_by_a_verification_that_is_newer_than_the_address() -> None:
    person = contact(email_version=0, verified_version=0)
    person.update(version=1, name="Ann", email="ann@example.com")
    assert not person.is_verified
    person.verify(version=2)
    person.update(version=3, name="Anna", email="ann@example.com")
    assert person.is_verified
    person.update(version=4, name="Anna", email="anna@example.com")
    person.verify(version=2)
    assert not person.is_verified
    person.verify(version=5)
    assert person.is_verified


def mail_delay(attempts: int) -> Any:
    return MailQueue.delay(cast("MailQueue", None), cast("ClaimedDelivery", SimpleNamespace(attempts=attempts)))


def test_delays_of_a_mail_grow_up_to_an_hour_and_end_after_days() -> None:
    delays = [mail_delay(attempts) for attempts in range(1, 100)]
    assert delays[0] == 2.0
    assert all(earlier <= later for earlier, later in pairwise(delays))
    assert delays[-1] == 3600
    assert 3 < sum(delays) / 86400 < 5
    assert mail_delay(100) is None


def test_a_webhook_has_three_attempts_within_150_s_and_then_growing_delays_up_to_a_day() -> None:
    longest = [1.25 * delay for delay in DELAYS]
    assert 3 * TIMEOUT + sum(longest[:2]) < 150
    assert all(earlier <= later for earlier, later in pairwise(longest))
    assert 3600 < longest[-1] < 86400
    assert 1 < sum(DELAYS) / 86400 < 3


NOTIFICATION = (
    "INSERT INTO notifications (id, user_id, kind, data, created_at) VALUES (gen_random_uuid(), gen_random_uuid(), "
)
IMPOSSIBLE = {
    "UPDATE contacts SET name = NULL": "ck_contacts_whole",
    "INSERT INTO contacts (user_id, version) VALUES (gen_random_uuid(), 1)": "ck_contacts_known",
    "UPDATE contacts SET version = 0": "ck_contacts_known",
    "UPDATE contacts SET erased = true": "ck_contacts_known",
    NOTIFICATION + "'order_placed', '{}', now())": "ck_notifications_order_id",
    NOTIFICATION + "'advertising', '{}', now())": "ck_notifications_kind",
    "INSERT INTO notifications SELECT gen_random_uuid(), user_id, kind, order_id, data, created_at FROM notifications"
    " WHERE order_id IS NOT NULL": "uq_notifications_order_id_kind",
    "INSERT INTO notifications SELECT gen_random_uuid(), user_id, kind, order_id, data, created_at FROM notifications"
    " WHERE kind = 'welcome'": "uq_notifications_welcome",
    "INSERT INTO deliveries (id, notification_id, channel, state)"
    " SELECT gen_random_uuid(), notification_id, channel, state FROM deliveries": "uq_deliveries_notification_id",
    "UPDATE deliveries SET state = 'sent'": "ck_deliveries_settled",
    "UPDATE deliveries SET settled_at = now()": "ck_deliveries_settled",
    "UPDATE deliveries SET state = 'failed', settled_at = now()": "ck_deliveries_cause",
    "UPDATE deliveries SET state = 'lost'": "ck_deliveries_state",
    "UPDATE deliveries SET channel = 'pigeon'": "ck_deliveries_channel",
    "UPDATE webhooks SET event_types = '{}'": "ck_webhooks_event_types",
    "UPDATE webhooks SET previous_secret = secret": "ck_webhooks_previous",
    "INSERT INTO webhook_deliveries (webhook_id, event_id, type, host) VALUES (gen_random_uuid(), gen_random_uuid(),"
    " 't', 'h')": "fk_webhook_deliveries_webhook_id",
    "INSERT INTO webhook_deliveries (webhook_id, event_id, type, host)"
    " SELECT webhook_id, event_id, type, host FROM webhook_deliveries": "pk_webhook_deliveries",
    "UPDATE webhook_deliveries SET state = 'sent'": "ck_webhook_deliveries_settled",
    "UPDATE webhook_deliveries SET state = 'failed', settled_at = now()": "ck_webhook_deliveries_cause",
    "UPDATE webhook_deliveries SET state = 'waiting', settled_at = now()": "ck_webhook_deliveries_settled",
    "UPDATE webhook_deliveries SET state = 'held', settled_at = NULL": "ck_webhook_deliveries_state",
    "UPDATE webhook_deliveries SET state = 'waiting', order_id = NULL": "ck_webhook_deliveries_waiting",
    "INSERT INTO webhook_deliveries (webhook_id, event_id, type, host, order_id)"
    " SELECT webhook_id, gen_random_uuid(), type, host, order_id FROM webhook_deliveries": "pending_order",
    "INSERT INTO webhook_attempts (webhook_id, event_id, number, at, duration_ms)"
    " SELECT webhook_id, gen_random_uuid(), 1, now(), 1 FROM webhook_deliveries": "fk_webhook_attempts_webhook_id",
    "UPDATE webhooks SET client_id = 'client-1'": "ck_webhooks_owner",
    "UPDATE webhooks SET user_id = NULL": "ck_webhooks_owner",
    "UPDATE webhooks SET enabled = false": "ck_webhooks_enabled",
    "UPDATE webhooks SET disabled_reason = 'failing'": "ck_webhooks_enabled",
    "UPDATE webhooks SET enabled = false, disabled_reason = 'boredom'": "ck_webhooks_disabled_reason",
}


async def test_the_database_refuses_impossible_states(world: World) -> None:
    user_id = new_id()
    await world.registered(user_id, send_welcome=True)
    await world.webhook(user_id)
    await world.order("placed", user_id)
    for change, constraint in IMPOSSIBLE.items():
        with pytest.raises(IntegrityError, match=constraint):
            async with world.database.transaction() as session:
                await session.execute(text(change))
