"""The feedback log: events, their payloads, the rules of appending, and the SQLite backend.

May import `artifact/`, `filesystem` and `mount_types`.
"""
