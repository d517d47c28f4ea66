"""Softstep: a model server that answers probability requests and learns from feedback while it serves."""

__version__ = "0.1.0"
