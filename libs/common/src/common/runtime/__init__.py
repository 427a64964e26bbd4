"""A process from start to drain: serving, health, background work."""
