"""Stand-ins of outside services: real HTTP servers with their answers, errors, limits and latencies.

As context managers in tests, or by hand: ``python -m tests.fakes.twenty --port 0`` prints its URL.
"""
