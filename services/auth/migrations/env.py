from auth.models import Base
from common.db.migrations import run_migrations
from common.messaging import inbox, outbox

run_migrations([Base.metadata, outbox.metadata, inbox.metadata])
