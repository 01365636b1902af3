"""The Search page: samples by their text and numbers."""
