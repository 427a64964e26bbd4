"""Delivery on any channel: claim what is due, send it, record the outcome."""
