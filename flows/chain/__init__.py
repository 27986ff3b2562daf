"""Stages as steps, and the chain over a whole project."""
