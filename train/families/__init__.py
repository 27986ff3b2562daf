"""The families of models: what their files are like, and what their networks are given."""
