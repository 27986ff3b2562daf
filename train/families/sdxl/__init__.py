"""Stable Diffusion XL: two text encoders, and a UNet that is also told the sizes of images."""
