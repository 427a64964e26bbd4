"""Mails: composed when they are due, sent over SMTP."""
