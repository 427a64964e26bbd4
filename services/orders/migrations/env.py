from common import inbox, outbox
from common.migrations import run_migrations
from orders.models import Base

run_migrations([Base.metadata, outbox.metadata, inbox.metadata])
