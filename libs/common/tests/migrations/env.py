from common import idempotency, inbox, outbox
from common.migrations import run_migrations

run_migrations([outbox.metadata, inbox.metadata, idempotency.metadata])
