from auth.sign_ins.models import SignIn
from common.db.migrations import run_migrations
from common.messaging import tables

run_migrations([SignIn.metadata, *tables.PRODUCER, *tables.CONSUMER, *tables.AUDIT])
