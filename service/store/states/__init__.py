"""Derived files of a stream: snapshots, checkpoints, report, losses and the learner's status.

May import `log/`, `artifact/`, `filesystem` and `mount_types`.
"""
