"""Engines, one folder each: ``session`` loads and runs on a device, ``compile`` works on a host."""
