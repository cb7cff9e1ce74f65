"""`python -m analysis.tidy`: a table of numbers from anywhere becomes a study."""
