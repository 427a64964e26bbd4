"""The event log as a feed over HTTP: pages, pages that wait, and streams of server-sent events.

A service offers it with a `Feed` and a `Streams` in its lifespan, and a route for each view (`orders/event_routes.py`).
"""
