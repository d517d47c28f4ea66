"""The live models: the registry, what is served of each version, and batched or single-row kernel calls.

May import `wire/`, `metrics/` and the leaves of `serve/`.
"""
