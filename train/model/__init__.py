"""Stable Diffusion models: checking, loading, adapters, memory, and which parameters are trained."""
