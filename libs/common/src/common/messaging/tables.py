"""The shared tables' metadata, by what a service does: for its `migrations/env.py`."""

from typing import Final

from common.messaging import aggregate_versions, audit, deferred, event_log, inbox, outbox, parked, unsendable

AUDIT: Final = (audit.metadata,)
PRODUCER: Final = (outbox.metadata, unsendable.metadata, event_log.metadata)
CONSUMER: Final = (inbox.metadata, parked.metadata)
CONSUMER_IN_ORDER: Final = (*CONSUMER, aggregate_versions.metadata, deferred.metadata)
