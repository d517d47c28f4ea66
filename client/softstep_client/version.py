"""The version of the package; a module of its own, which the build reads without importing httpx2."""

__version__ = "0.1.0"
