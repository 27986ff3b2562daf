"""Export of trained models, in the formats that other programs read."""
