from common.db.migrations import run_migrations
from common.messaging import inbox, outbox
from samples.models import Base

run_migrations([Base.metadata, outbox.metadata, inbox.metadata])
