"""Where rewards run: processes that can be killed, the pool over them, and what is kept loaded between trials."""
