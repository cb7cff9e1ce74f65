"""A study as units of work: which there are, what they take, which are done. Nothing here trains or scores."""
