"""Numba kernels on plain arrays; each docstring begins with the shapes of the arguments.

May import only each other, `arrays` and `compiler`.
"""
