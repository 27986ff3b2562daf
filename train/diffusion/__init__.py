"""The mathematics of diffusion: schedules, targets, losses, noise and random numbers, all pure functions."""
