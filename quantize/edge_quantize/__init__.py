"""Which precision, calibrated on which data, and how good the result is."""
