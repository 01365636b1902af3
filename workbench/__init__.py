"""GRPO workbench."""
