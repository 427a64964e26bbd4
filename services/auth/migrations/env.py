from auth import (
    browser_models,  # noqa: F401 - its tables, too
    client_models,  # noqa: F401 - its tables, too
    sign_in_models,  # noqa: F401 - its tables, too
)
from auth.models import Base
from common.db.migrations import run_migrations
from common.messaging import tables

run_migrations([Base.metadata, *tables.PRODUCER, *tables.CONSUMER, *tables.AUDIT])
