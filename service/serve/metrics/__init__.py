"""Counters in shared memory, and their Prometheus text format.

May import `process/` and the leaves of `serve/`.
"""
