from common.db.migrations import run_migrations
from common.feed import tables as feed_tables
from common.messaging import tables
from orders.models import Base

run_migrations([Base.metadata, *feed_tables.PRODUCER, *tables.CONSUMER, *tables.AUDIT])
