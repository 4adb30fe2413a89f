"""A received message as JSON: one document per recipient."""
