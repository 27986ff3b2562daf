"""The mathematics of diffusion: schedules, losses, noise and random numbers. Pure functions."""
