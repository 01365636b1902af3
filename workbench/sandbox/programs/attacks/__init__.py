"""Escape attempts. Each file has one `attack(target) -> bool`: True if it got what its first line says.
All are bounded.
"""
