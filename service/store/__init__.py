"""Storage: the only package that touches the disk. Artifacts are read and written here, and found in their folders."""
