from common.db.migrations import run_migrations
from common.messaging import tables
from samples.models import Base

run_migrations([Base.metadata, *tables.PRODUCER, *tables.CONSUMER, *tables.AUDIT])
