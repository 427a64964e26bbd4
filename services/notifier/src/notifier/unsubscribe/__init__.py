"""Turning off mails without a sign-in."""
