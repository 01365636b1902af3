"""The Group page: one prompt, one step, its completions, and what the update did."""
