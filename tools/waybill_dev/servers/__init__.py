"""The backing servers of the local stack: PostgreSQL, RabbitMQ, Envoy and an SMTP receiver."""
