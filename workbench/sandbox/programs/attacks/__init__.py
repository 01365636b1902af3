"""Escape attempts: `attack(target)` is True if it got what the first line says. All are bounded."""
