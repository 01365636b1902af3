"""The mathematics of GRPO as pure functions: advantages, per-token gradients, losses, KL controllers. Nothing here does I/O."""
