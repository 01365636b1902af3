"""Stage 3, what is good: plain functions, scored in processes that can be killed. No torch."""
