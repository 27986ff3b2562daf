"""Processes that work on one thing, on one machine or many: locks, leases, signs of life."""
