"""Which partitions of the outbox a relay process publishes: each of N processes an N-th of them.

The processes find each other in `pg_stat_activity`, by the name of a session that each of them keeps. Two that disagree
for a second are harmless: the partitions' locks decide.
"""

from typing import Any, Final

from common.messaging.outbox_partitions import PARTITIONS

# A process that is frozen or hangs is left out after the time in which PostgreSQL also ends its transactions.
_RELAYS: Final = """
    SELECT pid, pid = pg_backend_pid() AS own FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = current_setting('application_name')
    AND (pid = pg_backend_pid() OR state = 'active' OR state_change > now() - interval '15 seconds')
    ORDER BY backend_start, pid"""


async def own_partitions(connection: Any) -> tuple[int, ...]:
    """The partitions of this process. `connection`, asyncpg's, is the session by which the others count it."""
    relays = await connection.fetch(_RELAYS)
    place = next(place for place, relay in enumerate(relays) if relay["own"])
    return tuple(partition for partition in PARTITIONS if partition % len(relays) == place)
