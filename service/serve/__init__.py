"""Serving: HTTP in, probabilities out. The only package that knows HTTP."""
