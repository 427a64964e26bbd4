from common.db.migrations import run_migrations
from common.messaging import outbox
from users.models import Base

run_migrations([Base.metadata, outbox.metadata])
