"""Files and values that somebody else may have written, read without trust."""
