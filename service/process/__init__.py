"""Run the processes of one service: start and stop them, share memory between them, wake them.

May import settings; serve/, learn/ and commands/ use it.
"""
