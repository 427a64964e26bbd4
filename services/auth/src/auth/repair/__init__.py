"""Repairs what auth knows of people after a restore of users."""
