"""Every figure of a study."""
