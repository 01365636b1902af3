"""Models that score answers. Loaded by name in reward processes; no other room imports them."""
