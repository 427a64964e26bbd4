from common.db.migrations import run_migrations
from common.messaging import tables

run_migrations([*tables.PRODUCER, *tables.CONSUMER, *tables.AUDIT])
