"""Believable traffic of a shopping app, the client that sends it, and the truth about it."""
