"""Stable Diffusion 3 and 3.5: two CLIPs and T5, a transformer, and the noise of a rectified flow."""
