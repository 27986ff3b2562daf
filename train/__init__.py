"""Training: a folder of captioned images → a fine-tuned model, its checkpoints and exports."""
