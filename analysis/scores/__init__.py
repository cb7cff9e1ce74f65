"""Score files to single answers and to metrics.parquet."""
