"""Models that score completions. Imported by name in reward processes; no other room imports them."""
