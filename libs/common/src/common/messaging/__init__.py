"""Events from a transaction to a consumer's transaction: outbox, relay, broker, inbox, retries and parked messages."""
