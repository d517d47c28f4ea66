"""The number of files that a process may open: connections need more than the usual limit of 1,024."""

import resource
from typing import Final

# Files of a worker beside its connections: the log, models, pipes and libraries.
OTHER_FILES: Final = 1024


def allow_connections(count: int) -> None:
    """Raise the soft limit of this process and its children for some connections, as far as the hard limit allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + OTHER_FILES if hard == resource.RLIM_INFINITY else min(count + OTHER_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
