"""The feedback log as a worker writes it: a thread commits queued events, and the event loop reports the results.

May import `models/`, `wire/`, `metrics/` and the leaves of `serve/`.
"""
