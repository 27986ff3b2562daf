"""Models: loading, checking, adapters and what of them is trained."""
