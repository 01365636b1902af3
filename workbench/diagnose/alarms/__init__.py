"""What goes wrong in GRPO runs, noticed from recorded figures: rules by family, evidence, remedies, and the watch over a run."""
