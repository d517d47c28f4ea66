"""Parse request bodies into arrays and records, and encode response bodies.

May import `softmax/` and `store/`.
"""
