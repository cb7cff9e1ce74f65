"""A study's metrics as matrices, and how studies are found, collected and read."""
