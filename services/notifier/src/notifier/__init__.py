"""Tells people what happened: contacts, notifications, and their delivery by mail."""
