"""One use case each: predict, explain, feedback, administration, weights, and the status of a stream.

May import `log/`, `models/`, `wire/`, `metrics/` and the leaves of `serve/`.
"""
