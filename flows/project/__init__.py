"""project.yaml, and the folders and runs of its workspace."""
