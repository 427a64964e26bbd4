"""A process from start to drain: server, health, background work."""
