"""Nouns, errors, settings, presets, glossary and estimates. Imports nothing else of ours, and no torch."""
