"""The bodies of requests and responses as the OpenAPI document shows them.

May import pydantic and the limits of `serve/wire/`, `store/` and `softmax/`.
"""
