"""The compose stack: its secrets, and orders through it."""
