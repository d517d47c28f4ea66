"""Numba kernels on plain arrays; each begins with the shapes of its arguments.

May import only each other and `compiler`.
"""
