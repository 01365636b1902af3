"""Where rewards run: the pool, the worker groups below it, their processes, and the messages between the two sides."""
