"""Everything on disk: artifacts, the feedback log, states, and the data directory. May import `softmax/`.

Only this package reads or writes files and databases. Its subpackages, from the top: `directory`, `states`, `log`,
`artifact`, and the modules `filesystem` and `mount_types`.
"""
