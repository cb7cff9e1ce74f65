"""The training loop, its steps, metrics and tracking."""
