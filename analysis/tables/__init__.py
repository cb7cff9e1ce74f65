"""Every table of a study."""
