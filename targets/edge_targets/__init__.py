"""Engines, one file each: compile on a host and load on a device stand together."""
