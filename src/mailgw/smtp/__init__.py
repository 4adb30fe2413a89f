"""The language: SMTP as a receiving server speaks it. No sockets, no clock, no await."""
