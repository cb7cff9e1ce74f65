"""The processes of a run: groups, reductions, and what to do when one hangs."""
