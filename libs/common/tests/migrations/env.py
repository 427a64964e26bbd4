from common.db.migrations import run_migrations
from common.messaging import inbox, outbox

run_migrations([outbox.metadata, inbox.metadata])
