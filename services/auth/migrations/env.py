from auth.models import Base
from common import inbox, outbox
from common.migrations import run_migrations

run_migrations([Base.metadata, outbox.metadata, inbox.metadata])
