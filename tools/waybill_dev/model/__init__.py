"""Checks the model of an event's way, docs/model/events.pml, with Spin."""
