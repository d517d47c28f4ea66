"""What is kept: the one room that touches the disk. Artifacts are read and written here, and found in their folders."""
