"""The data directory as a whole: layout, locks, acknowledgement marks, backup, restore and verification.

May import `states/`, `log/`, `artifact/` and `filesystem`.
"""
