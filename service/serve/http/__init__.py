"""Sockets and HTTP/1.1: connections with limits and deadlines, and the fast path of requests.

May import what stands below in `serve/`, except `api/`.
"""
