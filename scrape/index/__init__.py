"""Choosing candidates from a LAION-style index."""
