"""Counters, metrics, the log and the stall meter.  Floor 5."""
