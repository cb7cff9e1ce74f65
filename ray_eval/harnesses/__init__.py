"""Scores that lm-evaluation-harness and lighteval left behind."""
