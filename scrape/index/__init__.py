"""Chooses candidates from a LAION-style index."""
