"""Tune: short runs at several ratios of ground truth, and which of them holds the limits with the least of it."""
