"""Numba kernels of the encoder on plain arrays; each docstring begins with the shapes of the arguments.

May import only each other, `service.compiler` and the kernels of `softmax/`.
"""
