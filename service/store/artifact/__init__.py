"""Model artifacts: read, validate and write a model folder, and find versions in a models directory.

May import `softmax/`, `filesystem` and `mount_types`.
"""
