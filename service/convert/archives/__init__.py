"""Read archives and arrays of other libraries within bounds: nothing is run, and nothing is written.

May import nothing of `convert/`.
"""
