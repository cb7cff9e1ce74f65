"""From a number back to the files and runs behind it; publishing a study."""
