from common.db.migrations import run_migrations
from common.messaging import tables
from notifier.webhooks.models import Webhook  # its module also loads all others

run_migrations([Webhook.metadata, *tables.CONSUMER_IN_ORDER])
