"""The data directory as a whole: layout, lock, key file, acknowledgement marks, backup, restore and verification.

May import `states/`, `log/`, `artifact/`, `filesystem` and `mount_types`.
"""
