"""Writing a trained model as other programs read it."""
