from auth.models import Base
from common.db.migrations import run_migrations
from common.messaging import tables

run_migrations([Base.metadata, *tables.PRODUCER, *tables.CONSUMER])
