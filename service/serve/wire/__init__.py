"""Request bodies to arrays and records, and results to response bodies.

May import `softmax/`, the limits of `store/`, and the leaves of `serve/`.
"""
