"""`python -m analysis.planner`: how many mixtures and seeds would be enough."""
