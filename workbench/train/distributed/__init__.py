"""One run trained by several processes: rank 0 runs the loop as if alone (leader), the other ranks do their share of each call (follower)."""
