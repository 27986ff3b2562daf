"""dreamloom: turns your own images into a fine-tuned Stable Diffusion model."""
