"""The data directory as a whole: layout, lock, key file, acknowledgement marks, backup, restore, verify and migrate.

May import `states/`, `log/`, `artifact/`, `filesystem` and `mount_types`.
"""
