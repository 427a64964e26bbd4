"""Test support: PostgreSQL and RabbitMQ per test, an API client, a token issuer, an OTLP collector. Not in images."""
