"""Feedback on its way to disk: one writer thread commits what waits, and the event loop reports it.

May import `models/`, `wire/`, `metrics/` and the leaves of `serve/`.
"""
