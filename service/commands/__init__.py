"""What each `softstep` command does; a module each, so that a command imports what it needs and nothing else."""
