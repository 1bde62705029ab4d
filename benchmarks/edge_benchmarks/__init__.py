"""Measures anything below: end to end, by stage, with percentiles, on the device."""
