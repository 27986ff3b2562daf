"""Bringing in images that lie on this machine."""
