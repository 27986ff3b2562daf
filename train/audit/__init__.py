"""Audit: what became of each concept between two checkpoints, also where nobody knows how the second was trained."""
