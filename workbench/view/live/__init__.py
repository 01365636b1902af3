"""The Live page: a run while it trains."""
