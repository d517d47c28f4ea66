"""How much may a principal ask for: buckets that all workers share, and the limits of each key."""
