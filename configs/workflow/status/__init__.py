"""Where a study stands, for people: in a terminal and as a page."""
