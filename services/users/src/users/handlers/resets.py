"""Requests for a password reset. The response must not reveal, by its time either, whether there is such an account.

So the work is the same for an active, a deactivated and an unknown account: one statement, and a commit that always
writes. What differs is two more rows for an active account, some 0.3 ms, which a fixed response time hides. This is
why the link and its event are written in SQL here. The SQL repeats the columns that `common.messaging.outbox.record`
writes and the fields of `SecretLinkRequested`: change them together.

Mails are limited, so that no mailbox is flooded. Each network from which the account has signed in before has a limit
of its own, which requests from strangers cannot use up. What one network may request for all addresses together is
limited before this (`users.deps.limit_mails`).
"""

from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from common.db.database import OUTBOX_CHANNEL, new_id, notify_after_commit
from common.observability.trace import current_traceparent
from users.credentials.throttle import LeakyBucket, count_in_bucket_sql
from users.events import SecretLinkRequested

_PER_ADDRESS: Final = LeakyBucket("address", capacity=5, interval=720)
"""Requests for one address, with or without an account: from one known network, or from all others together."""
RESPONSE_TIME: Final = 0.1
"""Seconds from the request to the response, several times what the work takes."""


async def request_password_reset(session: AsyncSession, email: str, *, network: str) -> None:
    """Creates a link and its event if `email` belongs to an active account and the limit is not reached.

    Counts the request in any case, and never says which case it was.
    """
    values = {
        "strangers_key": _PER_ADDRESS.key(email),
        "known_network_key": _PER_ADDRESS.key(email, network),
        "email": email,
        "network": network,
        "link_id": new_id(),
        "event_id": new_id(),
        "type": SecretLinkRequested.type,
        "traceparent": current_traceparent(),
    }
    await session.execute(_REQUEST, values)
    notify_after_commit(session, OUTBOX_CHANNEL)


# Without an account the network is looked up too, with the new link's id: no user has it.
_REQUEST: Final = text(f"""
    WITH bucket_key AS (
        SELECT CASE WHEN EXISTS (
            SELECT FROM known_networks WHERE network = :network
            AND user_id = coalesce((SELECT id FROM users WHERE email = :email), CAST(:link_id AS uuid)))
        THEN CAST(:known_network_key AS bytea) ELSE CAST(:strangers_key AS bytea) END AS key),
    counted AS ({count_in_bucket_sql(_PER_ADDRESS, key="(SELECT key FROM bucket_key)")}),
    owner AS (
        SELECT id FROM users WHERE email = :email AND status = 'active' AND EXISTS (SELECT FROM counted) FOR UPDATE),
    link AS (
        INSERT INTO secret_links (id, user_id, purpose, requested_at)
        SELECT CAST(:link_id AS uuid), id, 'reset_password', now() FROM owner
        RETURNING id, user_id, purpose, requested_at)
    INSERT INTO outbox (event_id, type, subject, version, occurred_at, data, traceparent)
    SELECT :event_id, :type, id::text, 1, requested_at,
           jsonb_build_object('link_id', id, 'user_id', user_id, 'purpose', purpose), :traceparent
    FROM link""")  # noqa: S608 - the module's own constants
