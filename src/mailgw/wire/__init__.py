"""Sockets, TLS and time: carries a client's bytes to the session and its replies back."""
