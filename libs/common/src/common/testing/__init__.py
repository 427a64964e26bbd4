"""Test support: real PostgreSQL and RabbitMQ per test, an API client, a token issuer. Not part of an image."""
