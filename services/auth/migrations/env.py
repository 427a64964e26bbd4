from auth.clients import models as client_models  # noqa: F401 - their tables, too
from auth.models import Base
from auth.sessions import models as session_models  # noqa: F401 - their tables, too
from auth.sign_ins import models as sign_in_models  # noqa: F401
from common.db.migrations import run_migrations
from common.messaging import tables

run_migrations([Base.metadata, *tables.PRODUCER, *tables.CONSUMER, *tables.AUDIT])
