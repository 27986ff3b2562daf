"""What a run would make, without making it."""
