"""Captions: BLIP writes them; file names and sidecars hold them."""
