"""The reader: one run in one element, in the dashboard, a notebook cell or an exported file."""
