"""Passwords and sessions, API keys, roles, headers, signatures, field encryption."""
