"""Webhooks: registered by people, planned from events, posted over HTTP."""
