"""Train a model on a file of rows: read it, choose its fields, encode it, fit it, and describe the result.

May import `store/` and the packages below it. Serving imports none of it.
"""
