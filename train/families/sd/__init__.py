"""Stable Diffusion 1.x and 2.x: one text encoder, a UNet, and the noise of a DDPM."""
