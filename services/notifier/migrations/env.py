from common import inbox, versions
from common.migrations import run_migrations
from notifier.models import Base

run_migrations([Base.metadata, inbox.metadata, versions.metadata])
