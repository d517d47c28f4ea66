"""The processes of one service: start, restart and stop them, share memory between them, wake them.

May import settings; `serve/`, `learn/` and `commands/` use it.
"""
