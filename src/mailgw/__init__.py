"""mailgw receives mail over SMTP and puts it into RabbitMQ, one JSON document per recipient."""

__version__ = "0.1.0"
