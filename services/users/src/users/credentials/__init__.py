"""Passwords: hashing, rules, and limits on guessing."""
