from common.db.migrations import run_migrations
from common.messaging import tables
from users.models import Base

run_migrations([Base.metadata, *tables.PRODUCER, *tables.AUDIT])
