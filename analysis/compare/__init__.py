"""`python -m analysis.compare`: two checkpoints on the same examples."""
