"""What the code runs on: signals, the Ray cluster, versions of code and machine."""
