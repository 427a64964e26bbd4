from common.db.migrations import run_migrations
from common.messaging import aggregate_versions, inbox
from notifier.models import Base

run_migrations([Base.metadata, inbox.metadata, aggregate_versions.metadata])
