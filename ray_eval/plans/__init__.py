"""Prompts compiled once for all checkpoints: ids, prefix trees, plans."""
