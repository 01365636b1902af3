"""The New run page: settings, what they cost, what is expected, and Start."""
