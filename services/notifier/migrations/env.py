from common.db.migrations import run_migrations
from common.messaging import tables
from notifier.models import Base

run_migrations([Base.metadata, *tables.CONSUMER_IN_ORDER, *tables.AUDIT])
