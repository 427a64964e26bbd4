"""Asking for a password's reset: the same work for an account that is there, is not there, or is deactivated.

One statement, and a commit that writes in any case. Two rows more for a known address are what is left of a difference:
some 0.3 ms, where round trips and a commit of its own were as much again as the whole. The answer waits that out.

Mails are counted, so that nobody's mailbox is filled. The count that strangers can use up is not that of the networks
which the account was signed in from before: each of those has its own.
"""

from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from common.db.database import OUTBOX_CHANNEL, new_id, notify_after_commit
from common.observability.logs import current_traceparent
from users.credentials.throttle import Bucket, fill
from users.events import SecretLinkRequested

PER_ADDRESS: Final = Bucket("address", capacity=5, interval=720)
"""Requests for one address, anybody's or nobody's, from all strange networks together or from one known to it."""
ANSWER_AFTER: Final = 0.1
"""Seconds from the request to its answer, several times what the work takes."""


async def request_password_reset(session: AsyncSession, email: str, *, network: str) -> None:
    """Nothing but the count happens for an unknown or deactivated account, and nothing tells so."""
    values = {
        "from_strangers": PER_ADDRESS.key(email),
        "from_known": PER_ADDRESS.key(email, network),
        "email": email,
        "network": network,
        "link_id": new_id(),
        "event_id": new_id(),
        "type": SecretLinkRequested.type,
        "traceparent": current_traceparent(),
    }
    await session.execute(_REQUEST, values)
    notify_after_commit(session, OUTBOX_CHANNEL)


# Whose network it is, is looked up for nobody as well: the id of a link that is not there yet is no person's.
_REQUEST: Final = text(f"""
    WITH chosen AS (
        SELECT CASE WHEN EXISTS (
            SELECT FROM known_networks WHERE network = :network
            AND user_id = coalesce((SELECT id FROM users WHERE email = :email), CAST(:link_id AS uuid)))
        THEN CAST(:from_known AS bytea) ELSE CAST(:from_strangers AS bytea) END AS key),
    counted AS ({fill(PER_ADDRESS, key="(SELECT key FROM chosen)")}),
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
