"""The FastAPI application: routes, their documentation, and the pages that show it.

May import what stands below in `serve/`, except `http/`.
"""
