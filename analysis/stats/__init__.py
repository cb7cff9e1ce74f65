"""Statistics that know nothing of studies: intervals, resampling, association, calibration."""
