"""The running program: builds the house from its settings, serves, drains."""
