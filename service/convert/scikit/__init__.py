"""Convert fitted pipelines of scikit-learn, in memory or in a .skops file, without importing scikit-learn.

May import `convert/columns/` and what it may import. Every part of a pipeline is a `PlainObject`: the name of its class
and its attributes. Classes are found by name in tables, and nothing of them is run.
"""
