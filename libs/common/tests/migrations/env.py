from common import inbox, outbox
from common.migrations import run_migrations

run_migrations([outbox.metadata, inbox.metadata])
