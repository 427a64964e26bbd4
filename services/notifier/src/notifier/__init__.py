"""Notifies people of events: contacts, notifications, mails and webhooks."""
