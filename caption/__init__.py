"""Captions: models generate them; file names, sidecars and other formats hold them."""
