"""Evaluation: what a model learned and forgot, and the samples it draws."""
