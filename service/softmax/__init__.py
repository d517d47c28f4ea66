"""Provide the arithmetic of softmax models on plain arrays: predictions, learners, calibrations and derivatives.

May import `service.compiler`, `service.errors` and NumPy; no clock, file or socket.
"""
