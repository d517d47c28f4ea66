"""Run the commands of `softstep`, one module each, so that a command imports only what it needs.

May import everything; nothing imports commands but by name, in `command_line.py`.
"""
