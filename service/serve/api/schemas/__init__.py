"""Pydantic models of every request and response body, with examples, and what the document says of each call.

May import the limits of `serve/handlers/`, `serve/wire/`, `store/` and `softmax/`.
"""
