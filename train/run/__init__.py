"""A run on disk: its folder, its checkpoints, and how to find its trained weights."""
