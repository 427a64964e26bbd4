"""Access tokens: verified locally, revoked by event, and fetched for a service's own calls to other services."""
